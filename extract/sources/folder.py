"""Images in a folder: walked once, links followed, no stat beyond what the listing gives."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from extract.errors import SourceError
from extract.record import Record
from extract.sources.layout import empty_class_notes, infer, is_hidden, is_image
from extract.sources.source import Source, default_name, shown, skipped_notes

MAX_LINKED = 100_000
"""Folders reached through links. A dozen folders that all link to each other have 12! paths without a cycle."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a walk found, as POSIX paths relative to where it began; images and folders are sorted."""

    images: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Branch:
    """A folder to visit: path, prefix in ids, real path, those of all folders above, and if links lead to it."""

    path: str
    prefix: str
    real: str
    above: frozenset[str]
    linked: bool = False


def open_folder(data: Path) -> Source:
    """Read a folder of class folders, of splits of class folders, or of images; the last has no labels.

    Raises SourceError where it cannot be listed, holds no image, or can be read in two ways.
    """
    root, where = str(data.absolute()), shown(str(data))
    listing = walk(data)
    if not listing.images:
        raise SourceError(
            "no images in this folder",
            where=where,
            remedy=f"Name them with .jpg, .png or another image suffix; {len(listing.skipped)} other files are here",
        )
    places = infer(listing.images, where=where)
    base = root.rstrip("/") + "/"
    records = tuple(Record(i, base + i, label, split) for i, (label, split) in zip(listing.images, places, strict=True))
    notes = skipped_notes(listing.skipped) + empty_class_notes(listing.images, listing.folders)
    return Source(default_name(data.resolve().name), root, records, tuple(notes))


def walk(root: Path) -> Listing:
    """List the images below a folder, as files are named; hidden names are ignored, links followed, cycles left out.

    Raises SourceError where any folder cannot be read: a part of a data set is not the data set.
    """
    listing = Listing()
    real = os.path.realpath(root)
    branches = [_Branch(str(root), "", real, frozenset([real]))]
    linked = 0
    while branches:
        branch = branches.pop()
        linked += branch.linked
        if linked > MAX_LINKED:
            remedy = "Remove links between folders, or list the images in a manifest"
            raise SourceError(f"links lead to more than {MAX_LINKED} folders", where=shown(str(root)), remedy=remedy)
        branches.extend(_visit(branch, listing))
    listing.images.sort()
    listing.folders.sort()
    return listing


def _visit(branch: _Branch, listing: Listing) -> Iterator[_Branch]:
    for entry in _entries(branch.path):
        name = entry.name
        if is_hidden(name):
            continue
        path = branch.prefix + name
        if _is_folder(entry):
            yield from _below(branch, entry, listing)
        elif is_image(name):
            listing.images.append(path)
        else:
            listing.skipped.append(path)


def _entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError as error:
        raise SourceError(
            f"the folder cannot be read: {error.strerror}",
            where=shown(path),
            remedy="Give read permission, or move it away if it is not part of the data",
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether to descend; a link to itself is no folder, and becomes a row that cannot be read."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _below(branch: _Branch, entry: os.DirEntry[str], listing: Listing) -> Iterator[_Branch]:
    """Yield the folder to visit, unless it is one that we are in already."""
    link = entry.is_symlink()
    real = os.path.realpath(entry.path) if link else f"{branch.real.rstrip('/')}/{entry.name}"
    if real not in branch.above:
        path = branch.prefix + entry.name
        listing.folders.append(path)
        yield _Branch(entry.path, path + "/", real, branch.above | {real}, link or branch.linked)


def list_files(path: Path) -> list[Record]:
    """List one file, or the images of a folder, unlabelled; ids begin with the path as given."""
    given, absolute = path.as_posix(), str(path.absolute())
    if not path.is_dir():
        return [Record(given, absolute)]
    names = walk(path).images
    if not names:
        raise SourceError("no images in this folder", where=shown(given), remedy="Give files by name, of any suffix")
    before, base = ("" if given == "." else given.rstrip("/") + "/"), absolute.rstrip("/") + "/"
    return [Record(before + name, base + name) for name in names]
