"""Checkpoints: how far a training has come, in one file that is whole or not there, for this very training only.

The file says in front which training it is of, and the SHA-256 of the rest, which is proven before PyTorch parses it.
Nothing in it can run.
"""

import contextlib
import hashlib
import io
import logging
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from extract.errors import TrainingError
from extract.store import files
from extract.store.folders import CHECKPOINT, TRAININGS

log = logging.getLogger(__name__)

MAGIC = b"offshelf training 1\n"
SHA_BYTES = 32
FILE = f"state{CHECKPOINT}"
DIGITS = 16


def training_folder(features_folder: Path, digest: str) -> Path:
    """Return where a training of that digest keeps its checkpoint: in the folder of the features it begins with."""
    return features_folder / TRAININGS / digest[:DIGITS]


def write(folder: Path, digest: str, content: dict[str, Any], file: str = FILE) -> None:
    """Put a checkpoint in place of the one before; raises StoreError where the disk has no room for it."""
    body = io.BytesIO()
    torch.save(content, body)
    sha = hashlib.sha256(body.getbuffer()).digest()
    files.replace(folder / file, b"".join((MAGIC, bytes.fromhex(digest), sha, body.getbuffer())))


def read(folder: Path, digest: str, file: str = FILE) -> dict[str, Any] | None:
    """Read the checkpoint of the training of that digest, onto the CPU; None where there is none, or a damaged one.

    Raises TrainingError where it is of another training, and StoreError where the system cannot read it.
    """
    path = folder / file
    with files.told(path, "read"):
        data = path.read_bytes() if path.is_file() else b""
    if not data:
        return None
    whose, sha, body = _parts(memoryview(data))
    if hashlib.sha256(body).digest() != sha:
        return _damaged(path)
    if whose != bytes.fromhex(digest):
        raise TrainingError("holds another training", where=str(path), remedy="Take another folder, or delete it")
    try:
        return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:  # a body of another's making, however hashed
        return _damaged(path, f" ({type(error).__name__})")


def forget(folder: Path, names: Sequence[str] = (FILE,)) -> None:
    """Remove the checkpoint of a training that nobody will go on with, and the folders that it leaves empty."""
    files.remove([folder / name for name in names])
    for each in (folder, *(parent for parent in (folder.parent,) if parent.name == TRAININGS)):
        with contextlib.suppress(OSError):
            each.rmdir()


def _parts(data: memoryview) -> tuple[bytes, bytes, memoryview]:
    """Part a file into the digest of the training, that of the rest, and the rest; empty ones where it is no such."""
    if data[: len(MAGIC)] != MAGIC:
        return b"", b"", data
    at = len(MAGIC) + SHA_BYTES
    return bytes(data[len(MAGIC) : at]), bytes(data[at : at + SHA_BYTES]), data[at + SHA_BYTES :]


def _damaged(path: Path, why: str = "") -> None:
    log.warning("%s is damaged%s: that training begins anew", path, why)
