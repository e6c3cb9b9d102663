"""Results of fits kept beside the features, so that a second fit computes only what has changed.

joblib's Memory, but for what it writes: arrays and JSON in files that are known to be whole, and never a pickle, which
could run anything when it is loaded. What a result depends on is named by the caller, digest by digest.

A file `<id>.fit` is the SHA-256 of the rest in hex, a line feed, and a file of safetensors, in whose metadata stand the
id and all values that are no arrays. Whatever is not that is a miss, and is computed again.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joblib import Memory, register_store_backend
from joblib.func_inspect import get_func_code
from joblib.memory import FileSystemStoreBackend
from safetensors import SafetensorError
from safetensors.numpy import load, save

from extract.errors import StoreError
from extract.store import files
from extract.store.folders import FIT, is_regular
from extract.store.index import versions

VERSION = 1
"""Of the arithmetic of this package: raise it where a result changes, and what was kept is computed anew."""

PACKAGES = ("numpy", "scipy", "scikit-learn", "offshelf")
BACKEND = "offshelf-fits"
LIMIT_BYTES = 1 << 30
MAX_ENTRY_BYTES = 256 << 20
SEAL_BYTES = 65
NUMBERS = "biuf"
"""Kinds of arrays that are kept."""

Result = dict[str, Any]
"""Arrays of numbers, and values that JSON has, by name."""

log = logging.getLogger(__name__)


class Item(NamedTuple):
    """A kept result as joblib asks for it when it looks for the oldest: `path`, bytes, when it was last asked for."""

    path: str
    size: int
    last_access: datetime


class Memo:
    """Remembers results in a folder; with none it computes every time."""

    def __init__(self, folder: Path | None, limit_bytes: int = LIMIT_BYTES) -> None:
        memory = Memory(folder, backend=BACKEND, verbose=0, backend_options={"limit_bytes": limit_bytes})
        self._kept: Any = memory.cache(_plain, ignore=["compute"])

    def remember(self, function: str, key: Mapping[str, str], compute: Callable[[], Result]) -> Result:
        """Return what `compute` gives, computed only where this function has not been asked with this key before.

        `key` names all that the result depends on: digests of data, and every setting. Versions of packages are added.
        Values that are no arrays come back as JSON has them: tuples as lists.
        """
        asked = {"function": function, "version": str(VERSION), **versions(PACKAGES), **key}
        return self._kept(asked=asked, compute=compute)


def memo(folder: Path | None) -> Memo:
    """Remember results in a folder, by custom `features.folder / FITS`; None for nowhere."""
    return Memo(folder)


@dataclass(frozen=True)
class Kept:
    """A memo, and what all that is asked of it depends on so far."""

    memo: Memo = field(default_factory=lambda: Memo(None))
    key: Mapping[str, str] = field(default_factory=dict)

    def about(self, **more: str) -> "Kept":
        """Return the same memo for results that depend on more."""
        return Kept(self.memo, {**self.key, **more})

    def remember(self, function: str, compute: Callable[[], Result]) -> Result:
        """Return what `compute` gives, computed only where it was not before."""
        return self.memo.remember(function, self.key, compute)


def digest(*parts: Any) -> str:
    """Digest arrays of numbers, texts and None, and lists and tuples of them, for a key: SHA-256 in hex."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, list | tuple):
            said, data = f"list {len(part)}", bytes.fromhex("".join(digest(each) for each in part))
        elif isinstance(part, np.ndarray) and part.dtype.kind in NUMBERS:
            said, data = f"{part.dtype.str} {part.shape}", np.ascontiguousarray(part).tobytes()
        elif part is None or isinstance(part, str):
            said, data = type(part).__name__, (part or "").encode("utf-8", "surrogateescape")
        else:
            raise TypeError(f"no digest of {type(part).__name__}")
        total.update(f"{said} {len(data)}\n".encode())
        total.update(data)
    return total.hexdigest()


def _plain(asked: dict[str, str], compute: Callable[[], Result]) -> Result:
    """Compute a result, and turn its values into what JSON makes of them, so that a kept one is no different."""
    arrays, values = _parted(compute())
    return {**arrays, **json.loads(json.dumps(values))}


def _parted(result: Result) -> tuple[dict[str, np.ndarray], Result]:
    """Part a result into arrays and other values; raises TypeError for arrays of objects or texts."""
    arrays = {name: value for name, value in result.items() if isinstance(value, np.ndarray)}
    for name, array in arrays.items():
        if array.dtype.kind not in NUMBERS:
            raise TypeError(f"{name!r} is an array of {array.dtype}, which is not kept")
    return arrays, {name: value for name, value in result.items() if name not in arrays}


def pack(entry: str, result: Result) -> bytes:
    """Write a result as the bytes of a file that knows its own id."""
    arrays, values = _parted(result)
    metadata = {"id": entry, "values": json.dumps(values)}
    body = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata)
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def unpack(entry: str, data: bytes) -> Result | None:
    """Read a result from the bytes of its file; None where they are damaged, of another id, or nothing of ours."""
    seal, body = data[:SEAL_BYTES], data[SEAL_BYTES:]
    if seal != hashlib.sha256(body).hexdigest().encode() + b"\n":
        return None
    try:
        arrays = load(body)
        length = int.from_bytes(body[:8], "little")
        metadata = json.loads(body[8 : 8 + length])["__metadata__"]
        values = json.loads(metadata["values"])
        return {**arrays, **values} if metadata["id"] == entry else None
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        return None


class FitStore(FileSystemStoreBackend):
    """joblib's way to a folder of such files, all in one folder.

    joblib compares the source of what it remembers; here the version in the key stands for that.
    """

    def configure(self, location: str, verbose: int = 0, backend_options: dict[str, Any] | None = None) -> None:
        """Take the folder, which is made when there is something to keep."""
        self.location, self.verbose = location, verbose
        self.limit_bytes = (backend_options or {}).get("limit_bytes", LIMIT_BYTES)
        self._whole: dict[str, Result] = {}

    def contains_item(self, call_id: Any) -> bool:
        """Read an item, and tell whether it is there and whole."""
        path = self._path(call_id)
        with suppress(OSError):
            if is_regular(path) and path.stat().st_size <= MAX_ENTRY_BYTES:
                result = unpack(path.stem, path.read_bytes())
                if result is not None:
                    self._whole[path.stem] = result
                    os.utime(path)
        return path.stem in self._whole

    def load_item(self, call_id: Any, *_: Any, **__: Any) -> Result:
        """Return the item that `contains_item` has read."""
        return self._whole.pop(self._path(call_id).stem)

    def dump_item(self, call_id: Any, item: Result, *_: Any, **__: Any) -> None:
        """Keep an item where it is not too large and the disk takes it; drop those longest unused beyond the limit."""
        path = self._path(call_id)
        data = pack(path.stem, item)
        if len(data) > min(MAX_ENTRY_BYTES, self.limit_bytes):
            log.info("%d bytes are too many to be kept for the next fit", len(data))
            return
        try:
            files.replace(path, data)
        except StoreError as error:
            log.warning("not kept for the next fit: %s", error)
            return
        self.enforce_store_limits(self.limit_bytes)

    def clear_item(self, call_id: Any) -> None:
        """Drop one item."""
        self.clear_location(str(self._path(call_id)))

    def clear_path(self, call_id: Any) -> None:
        """Drop all items: they are all of one function of joblib's."""
        self.clear_location(self.location)

    def clear_location(self, location: str) -> None:
        """Drop one item by its path, or all of the folder: files of ours, and nothing else."""
        path = Path(location)
        for each in [path] if path.suffix == FIT else path.glob(f"*{FIT}"):
            with suppress(OSError):
                each.unlink()

    def get_items(self) -> list[Item]:
        """List the items with their sizes, and when they were last asked for."""
        found: list[Item] = []
        for path in Path(self.location).glob(f"*{FIT}"):
            with suppress(OSError):
                status = path.stat()
                found.append(Item(str(path), status.st_size, datetime.fromtimestamp(status.st_mtime)))
        return found

    def store_metadata(self, call_id: Any, metadata: dict[str, Any]) -> None:
        """Keep no metadata."""

    def get_metadata(self, call_id: Any) -> dict[str, Any]:
        """Return none."""
        return {}

    def store_cached_func_code(self, call_id: Any, func_code: str | None = None) -> None:
        """Keep no source."""

    def get_cached_func_code(self, call_id: Any) -> str:
        """Return the source as it is now."""
        return get_func_code(_plain)[0]

    def _path(self, call_id: Any) -> Path:
        return Path(self.location) / f"{call_id[-1]}{FIT}"


register_store_backend(BACKEND, FitStore)
