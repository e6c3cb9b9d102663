"""DATA -> records: one file per kind of source, and the table of kinds."""

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from extract.errors import SourceError
from extract.record import Failure, Record, Status
from extract.sources.folder import list_files, open_folder
from extract.sources.held import Held
from extract.sources.manifest import open_csv, open_parquet
from extract.sources.source import Source, shown
from extract.sources.tar import expand_braces, open_tar
from extract.sources.torchvision_sets import PREFIX, open_torchvision, read_image

__all__ = ["Held", "Source", "is_a_file", "list_images", "open_source", "read_bytes"]

FORMS = (
    "Give DATA as a folder of class folders; a folder with train/, val/, test/; a flat folder; "
    "a .csv or .parquet manifest; .tar archives, as in shards/{000..012}.tar; or torchvision:NAME"
)
# Not all systems have these; O_NONBLOCK keeps a pipe without a writer from hanging us before fstat can tell.
OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

Opener = Callable[[str, Path | None], Source]
TABLES: dict[str, Opener] = {
    ".csv": lambda data, root: open_csv(Path(data), root),
    ".parquet": lambda data, root: open_parquet(Path(data), root),
}
ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
"""Compressed ones are refused by name of their compression, with what to do."""


def open_source(data: str, root: Path | None = None) -> Source:
    """Read DATA, in any of its forms, into records sorted by id; `root` is for manifests and torchvision only.

    Raises SourceError: no such data, no images, an ambiguous layout, a broken manifest or archive.
    """
    opener = _opener(data)
    if root is not None and opener in (_folder, _tar):
        raise SourceError("a root means nothing to a folder or an archive", where=shown(data), remedy="Leave it out")
    return opener(data, root)


def list_images(paths: Sequence[Path], root: Path | None = None) -> tuple[Record, ...]:
    """List files, folders (with all below them), manifests and archives as unlabelled records, sorted by id.

    Ids are the paths as given; the same image given twice is one record. `root` is for manifests and torchvision.
    Raises SourceError for what is not there, and for a root that nothing takes.
    """
    if root is not None and not any(map(_takes_root, paths)):
        remedy = "Leave it out, or name the manifest that it is for"
        raise SourceError("a root means nothing to images, folders and archives", where=shown(str(root)), remedy=remedy)
    records: dict[str, Record] = {}
    for record in (record for path in paths for record in _listed(path, root)):
        twin = records.setdefault(record.id, record)
        if (twin.path, twin.span) != (record.path, record.span):
            remedy = "Give them in separate runs"
            raise SourceError(f"two images are called {shown(record.id)!r}", where=shown(twin.path), remedy=remedy)
    return tuple(records[name] for name in sorted(records))


def is_a_file(record: Record) -> bool:
    """Tell whether an image's bytes are those of a file, or of a span of one."""
    return not isinstance(record, Held) and not record.path.startswith(PREFIX)


def read_bytes(record: Record, max_bytes: int) -> bytes | Failure:
    """Return the bytes of one image, at most `max_bytes` of them; whatever is wrong with it comes back as a Failure.

    MISSING: nothing there, no permission, no regular file, an I/O error; EMPTY; TOO_LARGE.
    """
    if isinstance(record, Held):
        return record.read(max_bytes)
    if not is_a_file(record):
        return read_image(record.path, max_bytes)
    try:
        descriptor = os.open(record.path, OPEN_FLAGS)
        try:
            return _read(descriptor, record.span, max_bytes)
        finally:
            os.close(descriptor)
    except (OSError, ValueError, OverflowError) as error:
        return Failure(Status.MISSING, getattr(error, "strerror", None) or "not a path that can be opened")


def _read(descriptor: int, span: tuple[int, int] | None, max_bytes: int) -> bytes | Failure:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return Failure(Status.MISSING, "not a regular file")
    offset, size = span or (0, status.st_size)
    if size <= 0:
        return Failure(Status.EMPTY, "no bytes")
    if size > max_bytes:
        return Failure(Status.TOO_LARGE, f"{size} bytes, more than the limit of {max_bytes}")
    if offset < 0 or offset + size > status.st_size:
        return Failure(Status.MISSING, "its archive ends before it")
    os.lseek(descriptor, offset, os.SEEK_SET)
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read(size) or Failure(Status.EMPTY, "no bytes")


def _folder(data: str, root: Path | None) -> Source:
    del root
    return open_folder(Path(data))


def _tar(data: str, root: Path | None) -> Source:
    del root
    return open_tar(data)


def _opener(data: str) -> Opener:
    """Choose the reader of DATA by what it is; raises SourceError listing the forms where it is none of them."""
    if data.startswith(PREFIX):
        return open_torchvision
    mode = _mode(data)
    if stat.S_ISDIR(mode):
        return _folder
    name = data.lower() if mode else expand_braces(data)[0].lower()
    if (suffix := Path(name).suffix) in TABLES and stat.S_ISREG(mode):
        return TABLES[suffix]
    if name.endswith(ARCHIVES):
        return _tar
    what = "this kind of file is not read" if stat.S_ISREG(mode) else "no such file or folder"
    raise SourceError(what, where=shown(data) or "an empty name", remedy=FORMS)


def _mode(data: str) -> int:
    """Return the mode of a file or folder, links followed; 0 where there is none."""
    try:
        return Path(data).stat().st_mode if data else 0
    except (OSError, ValueError):
        return 0


def _takes_root(path: Path) -> bool:
    """Tell whether a path names a manifest, or a set of torchvision's."""
    given = str(path)
    return given.startswith(PREFIX) or (given.lower().endswith(tuple(TABLES)) and not stat.S_ISDIR(_mode(given)))


def _listed(path: Path, root: Path | None) -> list[Record]:
    given = str(path)
    mode = _mode(given)
    if _takes_root(path) or (given.lower().endswith(ARCHIVES) and not stat.S_ISDIR(mode)):
        source = open_source(given, root if _takes_root(path) else None)
        return [replace(record, label=None, split=None, group=None) for record in source.records]
    if not mode:
        remedy = "Give image files, folders, a manifest (.csv, .parquet) or a .tar"
        raise SourceError("no such file or folder", where=shown(given), remedy=remedy)
    return list_files(path)
