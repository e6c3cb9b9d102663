"""Label and split of images from where they lie. Pure: relative POSIX paths in, shared by folders and tars."""

from collections.abc import Iterable, Sequence

from extract.errors import SourceError
from extract.record import SPLITS
from extract.sources.source import shown, some

Place = tuple[str | None, str | None]
"""The label and the split that a path says; None where it says nothing."""

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
)
REMEDY = "Move them into folders, one per class, or list them in a CSV manifest: path,label[,split,group]"


def is_image(name: str) -> bool:
    """Whether a file is named as an image; its content is judged later."""
    return name[name.rfind(".") :].lower() in IMAGE_SUFFIXES


def is_hidden(name: str) -> bool:
    """Whether a file or folder is of no concern to people: a leading dot, or what macOS leaves in archives."""
    return name.startswith(".") or name == "__MACOSX"


def split_of(path: str) -> str | None:
    """Return our name of the split whose folder (train, val, valid, validation, test, any case) a path begins with."""
    top, slash, _ = path.partition("/")
    return SPLITS.get(top.casefold()) if slash else None


def infer(paths: Sequence[str], *, where: str) -> list[Place]:
    """Read label and split from the folders of relative POSIX paths: n paths -> n places, in their order.

    Class folders give labels; train/, val/ and test/ of class folders give splits too; a flat folder gives neither.
    Raises SourceError where the folders can be read in two ways; `where` is what the error calls them.
    """
    tops = _tops(paths, where)
    splits = {top: SPLITS[top.casefold()] for top in tops if top.casefold() in SPLITS}
    if not splits:
        return [(path.partition("/")[0] if tops else None, None) for path in paths]
    if others := tops - splits.keys():
        raise SourceError(
            f"split folders ({some(list(splits))}) lie beside other folders of images ({some(list(others))})",
            where=where,
            remedy="Move the others away, rename them if all are classes, or use a CSV manifest",
        )
    return _within_splits(paths, splits, where)


def strip_shared_top(paths: Sequence[str]) -> list[str]:
    """Drop the one folder that holds everything, as archives have it; a split's folder says something and stays."""
    tops = {path.partition("/")[0] for path in paths}
    if len(tops) != 1 or any("/" not in path or split_of(path) for path in paths):
        return list(paths)
    return [path.partition("/")[2] for path in paths]


def empty_class_notes(paths: Iterable[str], folders: Iterable[str]) -> list[str]:
    """Say which class folders, of all relative `folders`, none of the image `paths` lies in."""
    holding = {folder for path in paths if (folder := _class_folder(path))}
    if not holding:
        return []
    splits = any(split_of(folder) for folder in holding)
    candidates = (f for f in folders if f and _class_folder(f"{f}/x") == f and bool(split_of(f)) == splits)
    empty = [f for f in candidates if f not in holding]
    if len(empty) == 1:
        return [f"no images in class folder {shown(empty[0])!r}"]
    return [f"no images in {len(empty)} class folders: {some(empty)}"] if empty else []


def _class_folder(path: str) -> str | None:
    """Return the folder that names the class of a path: the first, or the second below a split."""
    parts = path.split("/", 2)
    if len(parts) == 3 and parts[0].casefold() in SPLITS:
        return f"{parts[0]}/{parts[1]}"
    return parts[0] if len(parts) > 1 and parts[0].casefold() not in SPLITS else None


def _tops(paths: Sequence[str], where: str) -> set[str]:
    """Return the first folders of paths, none where all are flat; a mixture is an error."""
    loose = [path for path in paths if "/" not in path]
    if loose and len(loose) < len(paths):
        raise SourceError(f"images ({some(loose)}) lie beside folders of images", where=where, remedy=REMEDY)
    return set() if loose else {path.partition("/")[0] for path in paths}


def _within_splits(paths: Sequence[str], splits: dict[str, str], where: str) -> list[Place]:
    rests: dict[str, list[str]] = {top: [] for top in splits}
    for path in paths:
        top, _, rest = path.partition("/")
        rests[top].append(rest)
    flat = {top for top, inner in rests.items() if not _tops(inner, f"{where}/{top}")}
    parts = (path.split("/", 2) for path in paths)
    return [(None if top in flat else second, splits[top]) for top, second, *_ in parts]
