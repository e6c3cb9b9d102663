"""What is known of files without reading them: their SHA-256 by name, size, times and inode, as git's index does it.

One file per data set, `cache/NAME/contents.h5`, shared by its recipes. It may be lost, damaged or outdated: then files
are read again, and that is all.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from extract.errors import StoreError
from extract.record import Record
from extract.store import files
from extract.store.sealed import open_sealed, read_part, seal
from extract.store.texts import text_array, texts_of
from extract.store.whole import same_content

if TYPE_CHECKING:
    import h5py

log = logging.getLogger(__name__)

KIND = "contents"
FILE = "contents.h5"
FIELDS = 6

FINE_NS, COARSE_NS = 100_000_000, 2_100_000_000
"""How old a file's last change must be before it is read, so that a later one shows: clocks of file systems tick in
steps of up to 10 ms where they count nanoseconds, and of 2 s where they count seconds."""

Signature = tuple[int, ...]
"""Size, times of change of content and of inode in ns, inode, and the span in an archive: (6,)."""


def signature_of(record: Record) -> Signature | None:
    """Say what tells one state of a file from another without reading it; None where nothing does."""
    try:
        status = os.stat(record.path)  # noqa: PTH116 a Path for each of a million files takes longer than the stat
    except (OSError, ValueError):
        return None
    offset, size = record.span or (0, status.st_size)
    return size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, offset, status.st_size


def settled(signature: Signature, now_ns: int) -> bool:
    """Tell whether a change from `now_ns` on would show in the signature."""
    changed = max(signature[1], signature[2])
    return changed + (FINE_NS if signature[2] % 1_000_000 else COARSE_NS) < now_ns


@dataclass(slots=True)
class Known:
    """The SHA-256 of files by id and signature."""

    by_id: dict[str, tuple[Signature, bytes]] = field(default_factory=dict)

    def digest(self, record: Record, signature: Signature | None) -> bytes | None:
        """Return the SHA-256 of a file that did not change since it was read."""
        known = self.by_id.get(record.id)
        return known[1] if known and known[0] == signature else None


def read_known(path: Path) -> Known:
    """Read what is known; nothing where the file is missing or damaged."""
    try:
        file, table = open_sealed(path, KIND)
        with file:
            ids, signatures, digests = (read_part(file, path, KIND, table, n) for n in ("ids", "signatures", "sha256"))
        rows = map(tuple, signatures.tolist())
        contents = (digest.tobytes() for digest in digests)
        return Known(dict(zip(texts_of(ids), zip(rows, contents, strict=True), strict=True)))
    except StoreError as error:
        log.info("%s: %s. All files are read", path, error.what)
    except (ValueError, TypeError, AttributeError) as error:  # whole, and of other shapes than ours
        log.info("%s: %s. All files are read", path, error)
    return Known()


def write_known(path: Path, by_id: Mapping[str, tuple[Signature, bytes]]) -> None:
    """Write what is known in place of the file before, unless that says the same."""
    ids = sorted(by_id)

    def fill(file: "h5py.File") -> None:
        file.create_dataset("ids", data=text_array(ids))
        file.create_dataset("signatures", data=np.array([by_id[i][0] for i in ids], np.int64).reshape(-1, FIELDS))
        contents = b"".join(by_id[i][1] for i in ids)
        file.create_dataset("sha256", data=np.frombuffer(contents, np.uint8).reshape(-1, 32))

    data = seal(KIND, {"format_version": 1}, fill)[1]
    if not same_content(path, KIND, data, but=()):
        files.replace(path, data)
