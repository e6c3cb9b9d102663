import os

import pytest
import torch

from classify.finetune import checkpoint
from classify.finetune.checkpoint import FILE, MAGIC, forget, read, training_folder, write
from extract.errors import StoreError, TrainingError
from extract.store.folders import SetFolder

DIGEST, OTHER = "ab" * 32, "cd" * 32
CONTENT = {
    "step": 3,
    "history": [{"step": 0, "loss": None, "val_loss": 1.5}],
    "best": {"state": {"a": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(7)}},
    "live": None,
    "losses": [torch.tensor(0.25)],
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # waits for the disk, which nothing here can tell


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "training", DIGEST, CONTENT)
    return tmp_path / "training"


def test_what_was_written_is_read(folder):
    got = read(folder, DIGEST)
    assert {**got, "best": None, "losses": None} == {**CONTENT, "best": None, "losses": None}
    assert all(torch.equal(got["best"]["state"][name], value) for name, value in CONTENT["best"]["state"].items())
    assert got["losses"][0].item() == 0.25


def test_there_is_one_and_the_new_takes_the_place_of_the_old(folder):
    write(folder, DIGEST, CONTENT | {"step": 4})
    assert read(folder, DIGEST)["step"] == 4
    assert [path.name for path in folder.iterdir()] == [FILE]


def test_without_one_there_is_nothing_to_go_on_from(tmp_path):
    assert read(tmp_path / "none", DIGEST) is None


def test_that_of_another_training_is_refused(folder):
    with pytest.raises(TrainingError, match=r"holds another training.*delete it"):
        read(folder, OTHER)


@pytest.mark.parametrize("at", [0, 25, 60, 100, -1])
def test_one_changed_bit_anywhere_makes_it_a_miss_or_another_training(folder, at, caplog):
    data = bytearray((folder / FILE).read_bytes())
    data[at] ^= 1
    (folder / FILE).write_bytes(data)
    if len(MAGIC) <= at < len(MAGIC) + 32:
        with pytest.raises(TrainingError):
            read(folder, DIGEST)
    else:
        assert read(folder, DIGEST) is None
        assert "is damaged" in caplog.text


@pytest.mark.parametrize("n_bytes", [0, 1, 19, 40, 84, 85, 300])
def test_one_that_was_cut_short_is_a_miss(folder, n_bytes):
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:n_bytes])
    assert read(folder, DIGEST) is None


def test_a_full_disk_is_told_and_the_one_before_stays(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.files.os, "write", full)
    with pytest.raises(StoreError, match="No space left"):
        write(folder, DIGEST, CONTENT | {"step": 4})
    monkeypatch.undo()
    assert read(folder, DIGEST)["step"] == 3
    assert [path.name for path in folder.iterdir()] == [FILE]


def test_a_training_that_is_done_with_leaves_nothing_and_what_is_not_ours_stays(folder):
    forget(folder)
    forget(folder)
    assert not folder.exists()
    write(folder, DIGEST, CONTENT)
    (folder / "notes.txt").write_text("mine")
    forget(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_the_cache_knows_its_folders(tmp_path):
    features = tmp_path / "set" / "0123456789ab"
    folder = training_folder(features, DIGEST)
    write(folder, DIGEST, CONTENT)
    assert folder == features / "training" / DIGEST[:16]
    assert SetFolder(features).checkpoints() == [folder / FILE]
    forget(folder)
    assert list(features.iterdir()) == []
