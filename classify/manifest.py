"""The manifest of a bundle: its files with their digests, and what it says of them; every size capped before a read."""

import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from classify import thresholds
from extract.errors import BundleError

FORMAT, FORMAT_VERSION = "offshelf-bundle", 4
ONE_LAYER, NO_EXAMPLES = 2, 3
"""Versions before: one tap, no transform beside the head's arrays, no thresholds; then no examples."""
READABLE = (ONE_LAYER, NO_EXAMPLES, FORMAT_VERSION)

MANIFEST = "bundle.json"
WEIGHTS, HEAD, RECIPE = "weights.safetensors", "head.safetensors", "recipe.json"
OPEN_SET, MODEL, EXAMPLES = "open_set.safetensors", "head.skops", "examples.safetensors"
FILES = (HEAD, RECIPE, WEIGHTS)
"""What every bundle has."""
OPTIONAL = (EXAMPLES, MODEL, OPEN_SET)
MAX_JSON_BYTES = 32 << 20
MAX_BYTES = {
    HEAD: 8 << 30,
    RECIPE: MAX_JSON_BYTES,
    MODEL: 2 << 30,
    OPEN_SET: thresholds.MAX_BYTES + MAX_JSON_BYTES,
    EXAMPLES: MAX_JSON_BYTES,
}
"""What is read into memory; the weights are not."""
MAX_WEIGHTS_BYTES = 64 << 30
"""What is hashed: a file with holes can claim to be of any size."""
# Not all systems have these; O_NONBLOCK keeps a pipe without a writer from hanging us before fstat can tell.
OPEN_FLAGS = os.O_RDONLY | sum(getattr(os, f"O_{name}", 0) for name in ("NONBLOCK", "NOFOLLOW", "CLOEXEC", "BINARY"))

AGAIN = "Run fit again"
NAME_IT = "Name the bundle folder of a run"


def write_manifest(folder: Path, said: Mapping[str, Any]) -> None:
    """Write the manifest of the files that lie in `folder` by now; raises ValueError at what is no JSON."""
    files = {path.name: digest_of(path) for path in sorted(folder.iterdir())}
    manifest = {"format": FORMAT, "format_version": FORMAT_VERSION, **said, "files": files}
    text = json.dumps({**manifest, "sha256": manifest_digest(manifest)}, indent=2, allow_nan=False)
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest as JSON with sorted keys, without its own field `sha256`, in hex."""
    said = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def digest_of(path: Path) -> dict[str, Any]:
    """Return SHA-256 and size of a file as the manifest has them; raises BundleError where it is no plain file."""
    try:
        with _open_plain(path, MAX_WEIGHTS_BYTES) as (file, size):
            return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": size}
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read: {_reason(error)}", where=str(path), remedy=AGAIN) from error


def holds_bundle(folder: Path) -> bool:
    """Tell whether a folder holds a bundle and nothing else, so that no one misses it when it is replaced."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() and not folder.is_symlink() else set()
    return MANIFEST in names and names <= {MANIFEST, *FILES, *OPTIONAL}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read what a manifest of any version of ours says; all but its format and the names of its files is unchecked."""
    path = folder / MANIFEST
    try:
        said = json.loads(_read_capped(path, MAX_JSON_BYTES))
        form, version, files = said["format"], said["format_version"], set(said["files"])
        whole = form == FORMAT and set(FILES) <= files <= {*FILES, *OPTIONAL}
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise BundleError(f"no bundle here: {_reason(error)}", where=str(path), remedy=NAME_IT) from error
    if not whole:
        raise BundleError("not a bundle of ours", where=str(path), remedy=NAME_IT)
    if version not in READABLE:
        raise BundleError(
            f"bundle format {version!r:.20}; this version reads {ONE_LAYER} to {FORMAT_VERSION}",
            where=str(path),
            remedy=AGAIN,
        )
    return said


def told_as_now(said: dict[str, Any]) -> dict[str, Any]:
    """Say what a manifest of a version before says in the words of this one."""
    if said["format_version"] != ONE_LAYER:
        return said
    return {**said, "layers": [said["layer"]], "transform": "none", "task": "single", "thresholds": {}}


def read_files(folder: Path, files: Mapping[str, Any]) -> dict[str, bytes]:
    """Read the files of a bundle but for the weights, each proven to be what the manifest says; the weights too."""
    data = {name: _verified(folder / name, files[name]) for name in sorted(files) if name in MAX_BYTES}
    if digest_of(folder / WEIGHTS) != files[WEIGHTS]:
        raise changed(folder / WEIGHTS)
    return data


def changed(path: Path) -> BundleError:
    """Return the error for a file that is not the one that was written."""
    return BundleError("its content is not what was written", where=str(path), remedy=AGAIN)


def _verified(path: Path, said: Any) -> bytes:
    try:
        data = _read_capped(path, MAX_BYTES[path.name])
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read: {_reason(error)}", where=str(path), remedy=AGAIN) from error
    if {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} != said:
        raise changed(path)
    return data


def _read_capped(path: Path, limit: int) -> bytes:
    with _open_plain(path, limit) as (file, size):
        return file.read(size)


@contextmanager
def _open_plain(path: Path, limit: int) -> Iterator[tuple[io.BufferedReader, int]]:
    """Open a file of at most `limit` bytes: -> it, and its size.

    Raises ValueError at a larger one, at links, as a bundle is whole in its folder, and at pipes, devices and folders,
    none of which is waited for or read; and OSError.
    """
    _check_plain(path.lstat().st_mode)
    descriptor = os.open(path, OPEN_FLAGS)
    try:
        status = os.fstat(descriptor)
        _check_plain(status.st_mode)
        if status.st_size > limit:
            raise ValueError(f"{status.st_size} bytes are more than {limit}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file, status.st_size
    finally:
        os.close(descriptor)


def _check_plain(mode: int) -> None:
    if stat.S_ISLNK(mode):
        raise ValueError("a link, and a bundle is whole in its folder")
    if not stat.S_ISREG(mode):
        raise ValueError("not a regular file")


def _reason(error: Exception) -> str:
    """Say what the system says without the path, which stands beside it."""
    return getattr(error, "strerror", None) or str(error)
