"""Feature sets by name: the folders of a cache, those that are damaged or have no index included; opening one."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from extract.errors import StoreError, unknown
from extract.spec import NAME
from extract.store import shards
from extract.store.files import TEMPORARY
from extract.store.lock import held, lock_of
from extract.store.reader import INDEX, KEY_DIGITS, RECIPE, SHARDS, WEIGHTS, FeatureSet
from extract.store.sealed import open_sealed
from extract.store.shards import Shard, read_shard, shards_in

KEY = re.compile(rf"[0-9a-f]{{{KEY_DIGITS}}}")
LOCK = re.compile(rf"\.([0-9a-f]{{{KEY_DIGITS}}})\.lock")
GOLDEN = "golden.h5"
FITS, FIT = "fits", ".fit"
"""The folder of what fits have worked out of a feature set, and how its files end."""
TRAININGS, CHECKPOINT = "training", ".ckpt"
"""The folder of the trainings that began with a feature set, one folder for each, and how their files end."""

PARTS = "parts"
"""The folder of what the parts of an extraction found in their images."""

TAG = "CACHEDIR.TAG"
CACHE_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# Cached features of offshelf; safe to delete.\n"
"""The tag of a cache: by the first line backup programs know any cache, by the second one we know ours."""


@dataclass(frozen=True, slots=True)
class SetFolder:
    """The folder CACHE/NAME/KEY12 of a feature set, whatever is in it."""

    path: Path

    @property
    def name(self) -> str:
        """`NAME/KEY12`."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def cache(self) -> Path:
        """The cache that it is in."""
        return self.path.parent.parent

    @property
    def index(self) -> Path:
        """Where the index is, or would be."""
        return self.path / INDEX

    @property
    def lock(self) -> Path:
        """Where its lock is while somebody writes to it."""
        return lock_of(self.path)

    @property
    def linked(self) -> bool:
        """Whether a symbolic link leads to it, or on from it: to files that may not be the cache's."""
        inside = (self.path / name for name in (SHARDS, FITS, TRAININGS, PARTS))
        return any(each.is_symlink() for each in (self.path.parent, self.path, *inside, *self.trainings()))

    def files(self) -> list[Path]:
        """List the files that make it up, in the order in which they can go: a reader asks for the index first."""
        named = (self.path / name for name in (GOLDEN, RECIPE, WEIGHTS))
        return [path for path in (self.index, *shards_in(self.path / SHARDS), *named) if is_regular(path)]

    def fits(self) -> list[Path]:
        """List what fits have kept here: nothing that an extraction needs, and none of it is ever trusted."""
        return [path for path in sorted((self.path / FITS).glob(f"*{FIT}")) if is_regular(path)]

    def trainings(self) -> list[Path]:
        """List the folders of trainings that have not come to their end, or of a run that has not."""
        return [path for path in sorted((self.path / TRAININGS).glob("*")) if path.is_dir()]

    def checkpoints(self) -> list[Path]:
        """List how far trainings have come: a fit goes on from there, and begins anew where they are gone."""
        return [
            path for folder in self.trainings() for path in sorted(folder.glob(f"*{CHECKPOINT}")) if is_regular(path)
        ]

    def parts(self) -> list[Path]:
        """List what parts of an extraction found in their images: their index is made of it, again and again."""
        return [path for path in sorted((self.path / PARTS).glob("*.h5")) if is_regular(path)]

    def temporaries(self) -> list[Path]:
        """List what killed runs left behind."""
        folders = (self.path, *(self.path / name for name in (SHARDS, FITS, PARTS)), *self.trainings())
        return [each for folder in folders for each in temporaries_in(folder)]

    def shard(self, path: Path) -> Shard:
        """Read what a shard knows of its rows; raises StoreError where it is damaged or of another recipe."""
        file, table = open_sealed(path, shards.KIND)
        file.close()
        key = str(table.attributes.get("key"))
        return read_shard(path, key if key.startswith(self.path.name) else self.path.name)


def is_regular(path: Path) -> bool:
    """Tell whether there is a file, and not a link to one."""
    return path.is_file() and not path.is_symlink()


def temporaries_in(folder: Path) -> list[Path]:
    """List the temporary files right in a folder."""
    return [path for path in sorted(folder.glob(f"{TEMPORARY}*")) if is_regular(path)]


def list_folders(cache: Path) -> list[SetFolder]:
    """List the folders of feature sets, those without an index included, by name and key."""
    paths = sorted(path for path in cache.absolute().glob("*/*") if KEY.fullmatch(path.name) and path.is_dir())
    return [SetFolder(path) for path in paths if NAME.fullmatch(path.parent.name)]


def choose_folders(features: Sequence[str], cache: Path) -> list[SetFolder]:
    """Find `NAME` (all its recipes), `NAME/KEYPREFIX`, or paths of folders or indexes; all of the cache for none.

    Raises StoreError where there is none of that name.
    """
    known = list_folders(cache)
    chosen = [found for each in features for found in _chosen(each, known, cache)] if features else known
    return list(dict.fromkeys(chosen))


def _chosen(features: str, known: Sequence[SetFolder], cache: Path) -> list[SetFolder]:
    path = Path(features).absolute()
    folder = path.parent if path.name == INDEX else path
    if KEY.fullmatch(folder.name) and folder.is_dir():
        return [SetFolder(folder)]
    name, _, key = features.strip("/").partition("/")
    found = [each for each in known if each.path.parent.name == name and each.path.name.startswith(key)]
    if not found:
        names = [each.name for each in known] if key else sorted({each.path.parent.name for each in known})
        unknown(
            "features", features, names, StoreError, remedy=f"Looked in {cache}; make them with: pipeline.py extract"
        )
    return found


def open_features(features: str, cache: Path) -> FeatureSet:
    """Open `NAME`, `NAME/KEYPREFIX` or the path of an index; raises StoreError where that is none, or not one."""
    path = Path(features)
    if path.is_file() or (path / INDEX).is_file():
        return FeatureSet(path if path.is_file() else path / INDEX).check()
    begun = choose_folders([features], cache)
    found = [each for each in begun if each.index.is_file()]
    if not found:
        remedy = "Run its extract again: it goes on from there"
        raise StoreError("its first extraction did not come to its end", where=begun[0].name, remedy=remedy)
    if len(found) > 1:
        choices = "; ".join(map(_choice, found))
        raise StoreError(f"{features!r} is {len(found)} feature sets: {choices}", remedy="Say which, as NAME/KEY")
    return FeatureSet(found[0].index).check()


def _choice(found: SetFolder) -> str:
    try:
        recipe = FeatureSet(found.index).recipe
    except StoreError as error:
        return f"{found.name} ({error.what})"
    return f"{found.name} ({recipe.model}, {', '.join(tap.name for tap in recipe.taps)})"


def is_cache(cache: Path) -> bool:
    """Tell whether a folder bears our tag."""
    path = cache / TAG
    return is_regular(path) and path.read_bytes() == CACHE_TAG


def check_cache(cache: Path) -> None:
    """Raise StoreError unless the folder bears our tag: nothing is deleted in any other."""
    if not is_cache(cache):
        remedy = f"Check --cache; where {TAG} is lost, the next extract writes it"
        raise StoreError("no cache of offshelf", where=str(cache), remedy=remedy)


@contextmanager
def locked(folder: SetFolder) -> Iterator[str]:
    """Hold the lock of a feature set and give ""; where another process holds it, give who, and hold nothing."""
    with ExitStack() as stack:
        who = ""
        try:
            stack.enter_context(held(folder.lock, wait=False, on_wait=lambda _: None))
        except StoreError as error:
            who = error.what
        yield who
