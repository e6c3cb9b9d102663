"""Images in tar archives, WebDataset shards among them: listed once, read in place, never extracted."""

import itertools
import json
import os
import posixpath
import re
import stat
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from extract.errors import SourceError
from extract.record import Record
from extract.sources.layout import empty_class_notes, infer, is_hidden, is_image, split_of, strip_shared_top
from extract.sources.source import Source, default_name, shown, skipped_notes, some

MAX_ARCHIVES = 100_000
MAX_SIDECAR_BYTES = 1 << 20
PADDING_BYTES = 1 << 20
"""How much of what follows the end of an archive is looked at; tar itself pads by 10 kB."""

BRACES = re.compile(r"\{([^{},]*(?:,[^{},]*)+|\d+\.\.\d+)\}")
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
REMEDY = "Copy or write the archive again: tar -cf NAME.tar FOLDER"


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    offset: int
    size: int


@dataclass(slots=True)
class _Archive:
    """What one tar holds: images, the labels beside them by WebDataset key, and the names of everything else."""

    path: Path
    images: list[_Member] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    sidecars: list[_Member] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)


def open_tar(data: str) -> Source:
    """Read `.tar` archives, one or a brace pattern; labels from `.cls` or `.json` members, else from the folders.

    Ids are member names, below the archive's stem where there are several. Raises SourceError for an archive that is
    missing, compressed, truncated or damaged, for names that lead out of it, and for names given twice.
    """
    paths = [Path(name) for name in ([data] if _is_file(Path(data)) else expand_braces(data))]
    if missing := [str(path) for path in paths if not _is_file(path)]:
        remedy = "Check the pattern; every archive that it names must be a file"
        raise SourceError(f"{len(missing)} of {len(paths)} archives are missing: {some(missing)}", remedy=remedy)
    archives = [_list(path) for path in paths]
    records = _records(archives, shown(data))
    _refuse_twins(records, shown(data))
    return Source(default_name(Path(data).stem), str(Path(data).absolute()), tuple(records), tuple(_notes(archives)))


def _is_file(path: Path) -> bool:
    """Whether this is one regular file; a pipe named .tar would hang whoever opens it."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def expand_braces(pattern: str) -> list[str]:
    """Expand `{a,b}` and `{000..012}` (the zeros are kept) as shells do: one pattern -> at most 100,000 names."""
    match = BRACES.search(pattern)
    if match is None:
        return [pattern]
    head, tail = pattern[: match.start()], pattern[match.end() :]
    names = {name: None for choice in _choices(match[1]) for name in expand_braces(head + choice + tail)}
    if len(names) > MAX_ARCHIVES:
        raise _too_many(pattern)
    return list(names)


def _choices(text: str) -> Sequence[str]:
    if "," in text:
        return text.split(",")
    first, _, last = text.partition("..")
    low, high = int(first), int(last)
    if abs(high - low) >= MAX_ARCHIVES:
        raise _too_many(text)
    padded = any(end[0] == "0" and len(end) > 1 for end in (first, last))
    width = max(len(first), len(last)) if padded else 0
    step = 1 if low <= high else -1
    return [f"{number:0{width}d}" for number in range(low, high + step, step)]


def _too_many(pattern: str) -> SourceError:
    return SourceError(f"a pattern of more than {MAX_ARCHIVES} archives", where=shown(pattern), remedy="Name fewer")


def _records(archives: Sequence[_Archive], where: str) -> list[Record]:
    """Make the records of all archives, sorted by id; places are inferred over all of them at once."""
    members = [(archive, member) for archive in archives for member in archive.images]
    if not members:
        raise SourceError("no images in the archive", where=where, remedy="Name them with .jpg, .png or the like")
    bare = [member.name for archive, member in members if _key(member.name) not in archive.labels]
    places = dict(zip(bare, infer(strip_shared_top(bare), where=where), strict=True)) if bare else {}
    several = len(archives) > 1
    records = []
    for archive, member in members:
        known = archive.labels.get(_key(member.name))
        label, split = places[member.name] if known is None else (known, split_of(member.name))
        name = f"{archive.path.stem}/{member.name}" if several else member.name
        span = (member.offset, member.size)
        records.append(Record(name, str(archive.path.absolute()), label, split, span=span))
    return sorted(records, key=lambda record: record.id)


def _refuse_twins(records: Sequence[Record], where: str) -> None:
    for record, following in itertools.pairwise(records):
        if record.id == following.id:
            remedy = "Write the archive again, each name once; archives given together need different names"
            raise SourceError(f"two members are called {shown(record.id)!r}", where=where, remedy=remedy)


def _notes(archives: Sequence[_Archive]) -> list[str]:
    links = [name for archive in archives for name in archive.links]
    notes = [f"ignored {len(links)} links or devices in the archive: {some(links)}"] if links else []
    notes += skipped_notes([name for archive in archives for name in archive.skipped])
    if any(archive.labels for archive in archives):
        return notes
    names = [member.name for archive in archives for member in archive.images]
    folders = [folder for archive in archives for folder in archive.folders]
    if strip_shared_top(names) != names:
        folders = [folder.partition("/")[2] for folder in folders]
    return notes + empty_class_notes(strip_shared_top(names), folders)


def _key(name: str) -> str:
    """Return the WebDataset key: the path up to the first dot of its last part."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _list(path: Path) -> _Archive:
    """Read the headers of one archive, and the labels that lie beside its images."""
    archive = _Archive(path)
    with _opened(path) as file:
        try:
            for info in _headers(file):
                _sort_in(info, archive)
        # A hostile header can also claim a size or a nesting beyond all bounds.
        except (tarfile.TarError, OSError, ValueError, OverflowError, MemoryError, RecursionError) as error:
            raise _damaged(path, str(error) or type(error).__name__) from error
        except SourceError as error:
            raise SourceError(error.what, where=shown(str(path)), remedy=error.remedy) from error
        _read_labels(file, archive)
    return archive


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open an archive, refusing what is compressed: members are read at their offsets, in any order."""
    try:
        with path.open("rb") as file:
            magic = file.read(8)
            kind = next((kind for start, kind in COMPRESSED.items() if magic.startswith(start)), None)
            if kind is not None:
                remedy = "Decompress it first (gunzip, bunzip2, unxz, zstd -d): images are read in any order"
                raise SourceError(f"the archive is compressed with {kind}", where=shown(str(path)), remedy=remedy)
            file.seek(0)
            yield file
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error


def _damaged(path: Path, reason: str) -> SourceError:
    return SourceError(f"the archive is damaged or truncated: {reason}", where=shown(str(path)), remedy=REMEDY)


def _headers(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yield every header, and prove that they go on to the end: tarfile itself stops quietly at the first bad one."""
    size = os.fstat(file.fileno()).st_size
    with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        end = -1
        while (info := tar.next()) is not None:
            # tarfile would keep them all, about 1 GB for a million images; its stub leaves the attribute out.
            tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
            if info.size < 0 or info.offset <= end or _beyond(info, size):
                raise tarfile.ReadError(f"member {shown(info.name)!r} lies beyond the end")
            end = info.offset
            yield info
        file.seek(tar.offset)
        block = file.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE or any(block):
            raise tarfile.ReadError(f"no end of archive, but a bad header at byte {tar.offset}")
        if any(file.read(PADDING_BYTES)):
            raise tarfile.ReadError("there is more after its end, as when archives are joined with cat")


def _beyond(info: tarfile.TarInfo, size: int) -> bool:
    return info.isreg() and not info.issparse() and info.offset_data + info.size > size


def _sort_in(info: tarfile.TarInfo, archive: _Archive) -> None:
    """Put one member where it belongs; raises SourceError for those that no honest archive has."""
    name = _safe_name(info.name)
    base = name.rpartition("/")[2]
    if any(is_hidden(part) for part in name.split("/")):
        return
    if info.isdir():
        archive.folders.append(name)
    elif not info.isreg():
        archive.links.append(name)
    elif info.issparse():
        raise SourceError(f"member {shown(name)!r} is sparse", remedy="Write the archive again without --sparse")
    elif is_image(base):
        archive.images.append(_Member(name, info.offset_data, info.size))
    elif base.lower().endswith((".cls", ".json")):
        archive.sidecars.append(_Member(name, info.offset_data, info.size))
    else:
        archive.skipped.append(name)


def _safe_name(name: str) -> str:
    if name.startswith("/") or ".." in name.split("/") or "\0" in name or not name:
        remedy = "Do not trust this archive; write it again from its folder, with relative names"
        raise SourceError(f"member {shown(name)!r} leads out of the archive", remedy=remedy)
    # `tar -cf x.tar .` writes "./a.jpg", and the top folder itself as ".".
    return posixpath.normpath(name).removeprefix(".") if name in (".", "./") else posixpath.normpath(name)


def _read_labels(file: BinaryIO, archive: _Archive) -> None:
    """Fill `archive.labels` from the `.cls` and `.json` members that share their key with an image."""
    keys = {_key(member.name) for member in archive.images}
    for suffix, read in ((".json", _json_label), (".cls", _text_label)):
        for member in archive.sidecars:
            key, extension = _key(member.name), member.name[len(_key(member.name)) :].lower()
            if key in keys and extension == suffix:
                where = f"{shown(str(archive.path))}, member {shown(member.name)!r}"
                label = read(_sidecar(file, member, where), where)
                archive.labels.update({key: label} if label is not None else {})


def _sidecar(file: BinaryIO, member: _Member, where: str) -> str:
    if member.size > MAX_SIDECAR_BYTES:
        raise SourceError(f"a label of {member.size} bytes", where=where, remedy="Put the label alone in a .cls member")
    file.seek(member.offset)
    try:
        return file.read(member.size).decode()
    except UnicodeDecodeError as error:
        raise SourceError("the label is not UTF-8", where=where, remedy="Write it again as UTF-8 text") from error


def _text_label(text: str, where: str) -> str | None:
    if "\n" in text.strip():
        raise SourceError("the label has several lines", where=where, remedy="Put one class, a name or a number, in it")
    return text.strip() or None


def _json_label(text: str, where: str) -> str | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError("the JSON cannot be read", where=where, remedy="Write it again, or remove it") from error
    found = [value[name] for name in ("label", "cls") if name in value] if isinstance(value, dict) else []
    usable = (str(label).strip() for label in found if isinstance(label, str | int) and not isinstance(label, bool))
    label = next(usable, None) or None
    if label and any(0xD800 <= ord(letter) <= 0xDFFF for letter in label):
        raise SourceError("the label is no text", where=where, remedy="Write it again as UTF-8 text")
    return label
