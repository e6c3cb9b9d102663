"""Making room in a cache: what no index names, and whole feature sets.

Only files that are known to be the cache's own are deleted, one by one, and never through a symbolic link.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from extract.errors import StoreError, UnreadableError
from extract.spec import NAME
from extract.store import files, known
from extract.store.folders import (
    FITS,
    LOCK,
    PARTS,
    TRAININGS,
    SetFolder,
    check_cache,
    choose_folders,
    is_regular,
    list_folders,
    locked,
    temporaries_in,
)
from extract.store.lock import holder
from extract.store.reader import SHARDS, FeatureSet
from extract.store.shards import shards_in

TEMPORARY, UNUSED, FOREIGN, LEFT_LOCK = "temporary", "unused", "foreign", "lock"
UNFINISHED, UNREADABLE = "unfinished", "unreadable"
DELETED = frozenset({TEMPORARY, UNUSED, FOREIGN, LEFT_LOCK})

Found = tuple[Path, str, int | None]
"""A file, of which kind it is, and its rows."""


@dataclass(frozen=True, slots=True)
class Item:
    """A file that serves nothing: of which kind, its bytes, its rows where it is a whole shard; whether it goes.

    `temporary` was left by a killed run; `unused` is a shard that the index does not name; `unfinished` one of an
    extraction that did not come to its end, what its parts found in their images, or how far a training has come;
    `foreign` is no whole shard of the recipe; `unreadable` may be one, and stays; a `lock` is held by nobody.
    """

    path: Path
    kind: str
    bytes: int
    rows: int | None
    delete: bool

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {**asdict(self), "path": str(self.path)}


@dataclass(slots=True)
class Sweep:
    """One round through a cache: the kinds of files that go, or would go; what was found, and what was left alone."""

    kinds: Collection[str]
    delete: bool
    items: list[Item]
    busy: list[dict[str, str]]
    damaged: list[dict[str, str]]

    def sweep(self, folder: SetFolder) -> None:
        """Go through the folder of a feature set, unless somebody works on it."""
        was_locked = is_regular(folder.lock)
        with locked(folder) if self.delete else nullcontext(holder(folder.lock)) as who:
            if who:
                self.busy.append({"features": folder.name, "what": who})
                return
            self._take((path, TEMPORARY, None) for path in folder.temporaries())
            self._take(self._needless(folder))
            self._take((path, UNFINISHED, None) for path in (*folder.checkpoints(), *folder.parts()))
            if was_locked:
                self.items.append(Item(folder.lock, LEFT_LOCK, 0, None, delete=True))  # letting go of it deletes it
            if self.delete:
                _remove_empty(*_folders_in(folder))

    def sweep_above(self, folder: Path, locks: str) -> None:
        """Take the temporaries right in a folder, unless somebody works below it: holds one of these `locks`."""
        found = temporaries_in(folder)  # before the locks are looked at: what is written later is not in the list
        if not any(holder(path) for path in folder.glob(locks)):
            self._take((path, TEMPORARY, None) for path in found)

    def _needless(self, folder: SetFolder) -> Iterator[Found]:
        """Yield the shards that no index names; none where the index cannot say what it names."""
        try:
            features = FeatureSet(folder.index) if folder.index.exists() else None
        except StoreError as error:
            self.damaged.append({"features": folder.name, "what": error.what})
            return
        named = {name for name, *_ in features.shards} if features else set()
        since_ns = folder.index.stat().st_mtime_ns if features else 0
        for path in shards_in(folder.path / SHARDS):
            if is_regular(path) and path.name not in named:
                yield path, *_kind(folder, path, since_ns)

    def _take(self, found: Iterable[Found]) -> None:
        """Note files, and delete those that go."""
        items = [Item(path, kind, path.stat().st_size, rows, kind in self.kinds) for path, kind, rows in found]
        self.items += items
        if self.delete:
            files.remove([item.path for item in items if item.delete])


def _kind(folder: SetFolder, path: Path, since_ns: int) -> tuple[str, int | None]:
    """Say of which kind a shard is that the index, of that time, does not name, and how many rows it holds."""
    try:
        rows = len(folder.shard(path))
    except UnreadableError:
        return UNREADABLE, None
    except StoreError:
        return FOREIGN, None
    return (UNFINISHED if path.stat().st_mtime_ns >= since_ns else UNUSED), rows


def collect_garbage(
    features: Sequence[str], cache: Path, *, delete: bool = False, unfinished: bool = False
) -> dict[str, Any]:
    """List what feature sets, all of the cache for none, keep in vain, and `delete` it: what `--json` prints.

    What an extraction or a training computed that did not come to its end goes only if `unfinished`: the next one goes
    on from there.
    Raises StoreError where the folder bears no tag of ours.
    """
    chosen = choose_folders(features, cache) if features else [*list_folders(cache), *_locks_alone(cache)]
    folders = [folder for folder in chosen if not folder.linked]
    for each in {folder.cache for folder in folders} if features else {cache}:
        check_cache(each)
    cache = cache.absolute()
    done = Sweep(DELETED | {UNFINISHED} if unfinished else DELETED, delete, [], [], [])
    for folder in folders:
        done.sweep(folder)
    for name in dict.fromkeys(folder.path.parent for folder in folders) if features else _names(cache):
        done.sweep_above(name, ".*.lock")
    if not features:
        done.sweep_above(cache, "*/.*.lock")
    return {
        "cache": str(cache),
        "dry_run": not delete,
        "items": [item.as_dict() for item in done.items],
        "bytes": sum(item.bytes for item in done.items if item.delete),
        "busy": done.busy,
        "damaged": done.damaged,
    }


def _names(cache: Path) -> list[Path]:
    """List the folders of data sets."""
    return [path for path in sorted(cache.glob("*")) if NAME.fullmatch(path.name) and is_folder(path)]


def is_folder(path: Path) -> bool:
    """Tell whether there is a folder, and not a link to one."""
    return path.is_dir() and not path.is_symlink()


def _locks_alone(cache: Path) -> Iterator[SetFolder]:
    """Yield the feature sets of which there is nothing but a lock."""
    for path in (path for name in _names(cache) for path in sorted(name.glob(".*.lock"))):
        key = LOCK.fullmatch(path.name)
        if key and not (path.parent / key[1]).exists():
            yield SetFolder(path.parent / key[1])


def choose_to_remove(features: Sequence[str], cache: Path, *, every: bool) -> list[SetFolder]:
    """Find the feature sets to remove; a NAME that several share only if `every`.

    Raises StoreError where one is not in a cache of ours, or is reached through a symbolic link.
    """
    chosen: dict[SetFolder, None] = {}
    for each in features:
        found = choose_folders([each], cache)
        if len(found) > 1 and not every:
            names = ", ".join(folder.name for folder in found)
            raise StoreError(f"{each!r} is {len(found)} feature sets: {names}", remedy="Say which, or all: --all")
        chosen |= dict.fromkeys(found)
    for folder in chosen:
        check_cache(folder.cache)
        if folder.linked:
            remedy = "Remove the link, and what it leads to, by hand"
            raise StoreError("a symbolic link leads to other folders", where=str(folder.path), remedy=remedy)
    return list(chosen)


def size_of(folders: Sequence[SetFolder]) -> int:
    """Bytes of what `remove` would delete of feature sets."""
    return sum(path.stat().st_size for folder in folders for path in _all_files(folder))


def remove(folders: Sequence[SetFolder]) -> dict[str, Any]:
    """Remove whole feature sets, and of a data set without any what is known of its images: what `--json` prints.

    Files that are not the cache's stay, and are told. Raises StoreError where somebody works on one of them.
    """
    with ExitStack() as stack:
        for folder in folders:
            if who := stack.enter_context(locked(folder)):
                raise StoreError(who, where=folder.name, remedy="Remove it when that is done; nothing is removed yet")
        n_bytes, left = 0, []
        for folder in folders:
            n_bytes += _remove_files(_all_files(folder))
            _remove_empty(*_folders_in(folder))
            left += [path for path in sorted(folder.path.rglob("*")) if not path.is_dir()]
        emptied = [name for name in dict.fromkeys(f.path.parent for f in folders) if not _sets_in(name)]
        for name in emptied:
            n_bytes += _remove_files([path for path in (name / known.FILE,) if is_regular(path)])
    _remove_empty(*emptied)
    left += [path for name in emptied for path in sorted(name.glob("*"))]
    return {"removed": [folder.name for folder in folders], "bytes": n_bytes, "left": [str(path) for path in left]}


def _all_files(folder: SetFolder) -> list[Path]:
    """List all that is the cache's own in the folder of a feature set, in the order in which it can go."""
    return [*folder.files(), *folder.fits(), *folder.checkpoints(), *folder.parts(), *folder.temporaries()]


def _folders_in(folder: SetFolder) -> list[Path]:
    """List the folders that make up that of a feature set, the inner ones first."""
    return [*folder.trainings(), *(folder.path / name for name in (SHARDS, FITS, TRAININGS, PARTS)), folder.path]


def _remove_files(paths: Sequence[Path]) -> int:
    """Remove files in this order and return their bytes."""
    n_bytes = sum(path.stat().st_size for path in paths)
    files.remove(paths)
    return n_bytes


def _sets_in(name: Path) -> bool:
    return any(folder.path.parent == name for folder in list_folders(name.parent))


def _remove_empty(*folders: Path) -> None:
    """Remove those folders that are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
