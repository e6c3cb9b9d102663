"""Looking at every byte of what a cache holds, and dropping what is damaged, so that the next extract makes it anew."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from extract.errors import StoreError, UnreadableError
from extract.progress import Progress, Silent
from extract.recipe import Recipe
from extract.store import files, index, known, shards
from extract.store.damages import unreadable
from extract.store.folders import GOLDEN, SetFolder, check_cache, choose_folders, locked
from extract.store.reader import RECIPE, SHARDS, WEIGHTS, FeatureSet, weights_are_whole
from extract.store.shards import shards_in
from extract.store.whole import damage

MAX_RECIPE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one file, and the dataset that it is in, where it is in one; whether it is repaired.

    What is to `keep` may be whole, and is never removed: the disk failed, or a newer version wrote it.
    """

    file: Path
    what: str
    dataset: str | None = None
    keep: bool = False
    repaired: bool = False

    @classmethod
    def of(cls, path: Path, error: StoreError) -> "Problem":
        """Return what an error tells."""
        return cls(path, error.what, keep=isinstance(error, UnreadableError))

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {"file": str(self.file), "dataset": self.dataset, "what": self.what, "repaired": self.repaired}


Check = Callable[[Path], Iterator[Problem]]
"""Looks at one file and yields what is wrong with it."""


def verify(
    features: Sequence[str], cache: Path, *, repair: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Look at every byte of feature sets, of all in the cache for none: the summary that `--json` prints.

    `repair` removes the files that are damaged, but where somebody is at work: the next extract makes them anew.
    """
    folders, progress = choose_folders(features, cache), progress or Silent()
    if not features:
        check_cache(cache)
    looked_at = [path for folder in folders for path in folder.files()]
    contents = [path for path in dict.fromkeys(f.path.parent / known.FILE for f in folders) if path.is_file()]
    n_bytes = sum(path.stat().st_size for path in (*looked_at, *contents))
    progress.start("verify", len(looked_at) + len(contents))
    problems, busy = [], []
    for folder in folders:
        with locked(folder) if repair else nullcontext("") as who:
            found = list(problems_of(folder, progress))
            problems += _repaired(found) if repair and not who else found
        busy += [{"features": folder.name, "what": who}] if who else []
    found = [problem for path in contents for problem in _look(path, partial(_sealed, kind=known.KIND), progress)]
    problems += _repaired(found) if repair else found
    return {
        "cache": str(cache),
        "features": [folder.name for folder in folders],
        "files": len(looked_at) + len(contents),
        "bytes": n_bytes,
        "problems": [problem.as_dict() for problem in problems],
        "busy": busy,
    }


def problems_of(folder: SetFolder, progress: Progress) -> Iterator[Problem]:
    """Look at every file of a feature set, and yield what is wrong."""
    features, wrong = None, []
    if folder.index.exists():
        features, wrong = _open_index(folder.index)
        yield from wrong
        progress.advance(1)
    sound = not wrong
    for path, check in _checks(folder, features):
        for problem in _look(path, check, progress):
            sound = sound and path.parent.name != SHARDS
            yield problem
    if features is not None and sound:
        yield from _misplaced(features)


def _look(path: Path, check: Check, progress: Progress) -> Iterator[Problem]:
    there = path.is_file()
    yield from check(path)
    progress.advance(int(there))


def _repaired(problems: Sequence[Problem]) -> list[Problem]:
    """Remove the files that are damaged; what is missing needs no more than the next extract."""
    lost = {problem.file for problem in problems if not problem.keep and not problem.file.is_dir()}
    files.remove(sorted(lost))
    return [replace(problem, repaired=problem.file in lost) for problem in problems]


def _open_index(path: Path) -> tuple[FeatureSet | None, list[Problem]]:
    problems = list(_sealed(path, index.KIND))
    if problems:
        return None, problems
    try:
        return FeatureSet(path), []
    except StoreError as error:
        return None, [Problem(path, error.what, keep=True)]


def _misplaced(features: FeatureSet) -> Iterator[Problem]:
    """Yield where an index and its shards, all of which are whole, do not fit each other."""
    try:
        features.check()
    except StoreError as error:
        yield Problem.of(features.path, error)
        return
    for number, (name, *_) in enumerate(features.shards):
        try:
            features.check_layers(number)
        except StoreError as error:
            yield Problem.of(features.folder / SHARDS / name, error)


def _checks(folder: SetFolder, features: FeatureSet | None) -> Iterator[tuple[Path, Check]]:
    """Say what to look at besides the index, and how. Without an index, a first extraction may not be done yet."""
    begun = not folder.index.exists()
    recipe = features.recipe if features else None
    with suppress(StoreError):  # which is told where recipe.json itself is looked at
        recipe = recipe or _recipe_in(folder.path / RECIPE)
    for name, check in (
        (RECIPE, partial(_wrong_recipe, key=folder.path.name, expected=features.recipe if features else None)),
        (WEIGHTS, partial(_wrong_weights, recipe=recipe)),
        (GOLDEN, partial(_sealed, kind="golden")),
    ):
        if (folder.path / name).exists() or not (begun or name == GOLDEN):
            yield folder.path / name, check
    named = {name: digest for name, digest, *_ in features.shards} if features else {}
    present = {path.name for path in shards_in(folder.path / SHARDS)}
    for name in sorted(present | named.keys()):
        yield folder.path / SHARDS / name, partial(_wrong_shard, folder=folder, digest=named.get(name))


def _sealed(path: Path, kind: str) -> Iterator[Problem]:
    """Yield the damage of a sealed file, dataset by dataset."""
    try:
        found = damage(path, kind)
    except UnreadableError as error:
        yield Problem.of(path, error)
        return
    if found:
        yield from (Problem(path, found.what, dataset) for dataset in found.datasets or (None,))


def _wrong_shard(path: Path, folder: SetFolder, digest: str | None) -> Iterator[Problem]:
    """Yield what is wrong with a shard, to which the index gives the SHA-256 `digest` where it names it."""
    problems = list(_sealed(path, shards.KIND))
    yield from problems
    if problems:
        return
    try:
        shard = folder.shard(path)
    except StoreError as error:
        yield Problem.of(path, error)
        return
    if digest is not None and shard.sha256 != digest:
        yield Problem(path, "its SHA-256 is not the one in the index")


def _recipe_in(path: Path) -> Recipe | None:
    """Read recipe.json, None where it is none; raises UnreadableError where the disk fails."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_RECIPE_BYTES:
            return None
        return Recipe.from_json(path.read_text("utf-8"))
    except OSError as error:
        raise unreadable(path, "recipe", error) from error
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _wrong_recipe(path: Path, key: str, expected: Recipe | None) -> Iterator[Problem]:
    """Yield what is wrong with recipe.json: its key fits the folder, and it is the `expected` one of the index."""
    try:
        recipe = _recipe_in(path)
    except StoreError as error:
        yield Problem.of(path, error)
        return
    if not path.is_file():
        yield Problem(path, "the recipe is missing")
    elif recipe is None:
        yield Problem(path, "it holds no recipe")
    elif not recipe.key.startswith(key):
        yield Problem(path, "its recipe is not that of the folder")
    elif expected is not None and recipe != expected:
        yield Problem(path, "its recipe is not that of the index")


def _wrong_weights(path: Path, recipe: Recipe | None) -> Iterator[Problem]:
    if not path.is_file():
        yield Problem(path, "the weights are missing")
        return
    try:
        whole = recipe is None or weights_are_whole(path, recipe)
    except StoreError as error:
        yield Problem.of(path, error)
        return
    if not whole:
        yield Problem(path, "the weights are damaged, or not those of the recipe")
