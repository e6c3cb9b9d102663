"""A bundle as one file: a zip whose members are stored as they are, so that nothing in it can grow as it is read.

What is read is doubted: members are a bundle's files by their very names, each once, neither packed nor encrypted nor
links, and together no larger than the archive. Then they are a folder, and read as one, with all of its digests.
"""

import os
import shutil
import stat
import struct
import tempfile
import weakref
import zipfile
from pathlib import Path
from typing import IO

from classify.bundle import read_bundle
from classify.deployed import Bundle
from classify.folders import whole_file
from classify.manifest import AGAIN, FILES, MANIFEST, MAX_BYTES, MAX_JSON_BYTES, OPTIONAL, holds_bundle
from extract.errors import BundleError, first_line

SUFFIX = ".zip"
NAMES = (MANIFEST, *FILES, *OPTIONAL)
COPY = "Copy it again, or make it anew: pipeline.py export RUN -o FILE.zip --format zip"
LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The time of every member, the first that a zip can tell: equal bundles make equal archives."""

END, END_BYTES = b"PK\5\6", 22
BEFORE_END, BEFORE_BYTES = b"PK\6\7", 20
"""What stands before it in archives of 4 GiB and more; zipfile would believe it more than the end itself."""
END_FIELDS = struct.Struct("<4s4H2LH")
"""The record at the end: signature, two numbers of disks, members here and in all, bytes and place of their list,
length of a comment."""
LIST_BYTES = 64 << 10
"""What the list of members may take; before it is known, zipfile would read all of it."""
ENCRYPTED = 0x1
PIECE = 1 << 20
WRONG = (zipfile.BadZipFile, zipfile.LargeZipFile, ValueError, NotImplementedError, EOFError, RuntimeError)
"""What zipfile raises at a file that is no zip, or another kind of zip."""


def write_archive(folder: Path, path: Path) -> None:
    """Write the bundle in `folder` to `path` as one .zip, whole or not at all; the same bundle gives the same bytes.

    Raises BundleError where that folder is no bundle, or `path` cannot be written.
    """
    read_bundle(folder)
    if not holds_bundle(folder):
        raise BundleError("holds more than a bundle of ours", where=str(folder), remedy=AGAIN)
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=False) as archive:
        for name in (name for name in NAMES if (folder / name).exists()):
            with (folder / name).open("rb") as source, archive.open(_member(name), "w") as target:
                shutil.copyfileobj(source, target, PIECE)


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, LONG_AGO)
    member.create_system = 3  # as on POSIX systems, wherever it is written
    member.external_attr = (stat.S_IFREG | 0o644) << 16
    return member


def bundle_folder(run: str) -> Path:
    """Find the bundle of a run: the run's folder, its name under runs/, or the bundle itself."""
    for folder in (Path(run) / "bundle", Path(run), Path("runs") / run / "bundle"):
        if (folder / MANIFEST).is_file():
            return folder
    raise BundleError("no run of that name or path", where=run, remedy="Make one with: pipeline.py fit FEATURES")


def read_run(run: str) -> Bundle:
    """Read the bundle of a run, by name, folder or .zip. What was unpacked lives as long as the bundle that it gave.

    Raises BundleError where there is none, or it is not what it should be.
    """
    if not (run.lower().endswith(SUFFIX) and Path(run).is_file()):
        return read_bundle(bundle_folder(run))
    folder = _new_folder(run)
    try:
        unpack(Path(run), folder)
        bundle = read_bundle(folder)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, BundleError):  # the folder means nothing to anyone
            where = error.where.replace(f"{folder}{os.sep}", f"{run}: ").replace(str(folder), run)
            raise BundleError(error.what, where=where, remedy=error.remedy) from error
        raise
    weakref.finalize(bundle, shutil.rmtree, folder, ignore_errors=True)
    return bundle


def unpack(path: Path, folder: Path) -> None:
    """Write the members of an archive into `folder`; raises BundleError at anything but a bundle of ours."""
    try:
        with path.open("rb") as file:
            _check_end(file)
            with zipfile.ZipFile(file) as archive:
                _check_members(archive.infolist(), path.stat().st_size)
                for member in archive.infolist():
                    _write_member(archive, member, folder / member.filename)
    except WRONG as error:
        said = first_line(error)
        raise BundleError(f"not a bundle of ours: {said}", where=str(path), remedy=COPY) from error
    except OSError as error:
        raise _not_unpacked(str(path), error) from error


def _new_folder(run: str) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="offshelf-"))
    except OSError as error:
        raise _not_unpacked(run, error) from error


def _not_unpacked(run: str, error: OSError) -> BundleError:
    said = f"cannot be unpacked ({error.strerror or error})"
    return BundleError(said, where=run, remedy="Make room for temporary files (TMPDIR), or name a folder")


def _check_end(file: IO[bytes]) -> None:
    """Raise ValueError unless a file ends as our archives do: with a short list of members, and no comment."""
    size = file.seek(0, os.SEEK_END)
    if size < BEFORE_BYTES + END_BYTES:
        raise ValueError("it ends before its list of members")
    file.seek(-BEFORE_BYTES - END_BYTES, os.SEEK_END)
    before, end = file.read(BEFORE_BYTES), file.read(END_BYTES)
    sign, _, _, here, n_members, n_bytes, place, comment = END_FIELDS.unpack(end)
    if (
        before.startswith(BEFORE_END)
        or sign != END
        or comment
        or here != n_members
        or place + n_bytes + END_BYTES != size
    ):
        raise ValueError("it does not end with a list of members")
    if n_members > len(NAMES) or n_bytes > LIST_BYTES:
        raise ValueError(f"{n_members} members")


def _check_members(members: list[zipfile.ZipInfo], n_bytes: int) -> None:
    """Raise ValueError unless these are a bundle's files, plain, each once, and no more than the archive."""
    names = [member.filename for member in members]
    if odd := [name for name in names if name not in NAMES]:
        raise ValueError(f"it holds {odd[0]!r:.80}")
    if len(set(names)) < len(names):
        raise ValueError("a file is in it twice")
    if missing := {MANIFEST, *FILES} - set(names):
        raise ValueError(f"it lacks {min(missing)}")
    for member in members:
        _check_member(member)
    if sum(member.file_size for member in members) > n_bytes:
        raise ValueError("its members are larger than itself")


def _check_member(member: zipfile.ZipInfo) -> None:
    name, mode = member.filename, member.external_attr >> 16
    if member.flag_bits & ENCRYPTED:
        raise ValueError(f"{name} is encrypted")
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise ValueError(f"{name} is packed")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise ValueError(f"{name} is no plain file")
    limit = MAX_JSON_BYTES if name == MANIFEST else MAX_BYTES.get(name)
    if limit is not None and member.file_size > limit:
        raise ValueError(f"{name}: {member.file_size} bytes are more than {limit}")


def _write_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    """Write one member; zipfile checks its CRC, and gives no more bytes than it says."""
    with archive.open(member) as source, path.open("xb") as target:
        shutil.copyfileobj(source, target, PIECE)
