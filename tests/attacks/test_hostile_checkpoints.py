import os
import pickle
from hashlib import sha256

import pytest

from classify.finetune.checkpoint import FILE, MAGIC, read, write

DIGEST = "ab" * 32


class Command:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("body", [pickle.dumps(Command(), 2), pickle.dumps({"step": Command()}, 2), b"words", b""])
def test_what_a_checkpoint_holds_is_never_run_however_well_it_is_hashed(body, tmp_path):
    (tmp_path / FILE).write_bytes(MAGIC + bytes.fromhex(DIGEST) + sha256(body).digest() + body)
    assert read(tmp_path, DIGEST) is None
    assert not (tmp_path / "ran").exists()


def test_nor_is_what_an_archive_of_torchs_holds(tmp_path):
    write(tmp_path, DIGEST, {"step": Command()})
    assert read(tmp_path, DIGEST) is None
    assert not (tmp_path / "ran").exists()
