import io
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from extract.errors import SourceError
from extract.record import Failure, Record, Status
from extract.sources import open_source, read_bytes, torchvision_sets

PIXELS = {part: np.random.default_rng(seed).integers(0, 256, (3, 28, 28), np.uint8) for seed, part in enumerate("ab")}


def write_mnist(root: Path) -> Path:
    """Three training and three test images, as MNIST's own files have them."""
    raw = root / "MNIST/raw"
    raw.mkdir(parents=True)
    for name, pixels in (("train", PIXELS["a"]), ("t10k", PIXELS["b"])):
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, 3, 28, 28) + pixels.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, 3) + bytes([7, 0, 9]))
    return root


class SmallFake(datasets.FakeData):
    def __init__(self, size: int = 6):
        super().__init__(size, (3, 8, 8), num_classes=3)


class Odd(datasets.FakeData):
    """What it gives for an image, and what it lists, is set by each test."""

    item: tuple[object, ...] = ()
    targets: object = ()

    def __init__(self, root: str, split: str = "train"):
        if split not in ("train", "valid"):
            raise ValueError(f"Unknown value '{split}' for argument split.")
        super().__init__(2)

    def __getitem__(self, index):
        return self.item


def test_mnist(tmp_path):
    root = write_mnist(tmp_path / "a folder & #1")
    source = open_source("torchvision:mnist", root)
    assert [record.id for record in source.records] == [f"{s}/0000{i}" for s in ("test", "train") for i in range(3)]
    assert [record.label for record in source.records] == ["7 - seven", "0 - zero", "9 - nine"] * 2
    assert [record.split for record in source.records] == ["test"] * 3 + ["train"] * 3
    assert (source.name, source.origin, source.notes) == ("mnist", f"torchvision:MNIST, below {root}", ())
    image = Image.open(io.BytesIO(read_bytes(source.records[4], 10_000)))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), PIXELS["a"][1])


def test_a_location_says_everything(tmp_path):
    root = write_mnist(tmp_path)
    record = open_source("torchvision:MNIST", root).records[3]
    assert record.path.startswith("torchvision:MNIST?split=train&root=")
    torchvision_sets._cached.cache_clear()
    assert read_bytes(record, 10_000) == read_bytes(record, 10_000)
    assert read_bytes(record, 100) == Failure(Status.TOO_LARGE, "1862 bytes, more than the limit of 100")
    gone = Record("x", record.path.replace("#0", "#3"))
    assert read_bytes(gone, 10_000) == Failure(Status.MISSING, "torchvision does not have this image (IndexError)")


def test_listed_targets_are_taken_without_decoding_every_image(tmp_path, monkeypatch):
    asked = []
    original = datasets.MNIST.__getitem__
    monkeypatch.setattr(datasets.MNIST, "__getitem__", lambda self, index: asked.append(index) or original(self, index))
    open_source("torchvision:MNIST", write_mnist(tmp_path))
    assert asked == [0, 0]


def test_a_set_that_lists_no_targets_and_has_no_splits(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "FakeData", SmallFake)
    torchvision_sets._cached.cache_clear()
    source = open_source("torchvision:fakedata", tmp_path)
    expected = SmallFake()
    assert [(r.id, r.label, r.split) for r in source.records] == [
        (f"0000{i}", str(expected[i][1]), None) for i in range(6)
    ]
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda record: read_bytes(record, 10_000), source.records * 5))
    for index, content in enumerate(images):
        np.testing.assert_array_equal(Image.open(io.BytesIO(content)), expected[index % 6][0])
    torchvision_sets._cached.cache_clear()


@pytest.fixture
def odd(monkeypatch, tmp_path):
    """Let the test say what the data set is made of, and read it under the name of GTSRB."""

    def read(item, targets=()):
        monkeypatch.setattr(datasets, "GTSRB", type("Odd", (Odd,), {"item": item, "targets": targets}))
        torchvision_sets._cached.cache_clear()
        return open_source("torchvision:GTSRB", tmp_path).records

    yield read
    torchvision_sets._cached.cache_clear()


def test_the_splits_are_those_that_it_takes(odd):
    image = Image.new("CMYK", (2, 2))
    records = odd((image, 5), [5, 1])
    assert [(r.id, r.label, r.split) for r in records] == [
        ("train/00000", "5", "train"),
        ("train/00001", "1", "train"),
        ("val/00000", "5", "val"),
        ("val/00001", "1", "val"),
    ]
    assert Image.open(io.BytesIO(read_bytes(records[0], 1000))).mode == "RGB"


@pytest.mark.parametrize("targets", [[5], [4, 5], np.eye(2), ["a", "b"], None])
def test_lists_that_are_not_the_targets_are_not_believed(odd, targets):
    assert [record.label for record in odd((Image.new("L", (1, 1)), 5), targets)] == ["5"] * 4


def test_an_unlabelled_split_has_no_labels(odd):
    assert [record.label for record in odd((Image.new("L", (1, 1)), None))] == [None] * 4


@pytest.mark.parametrize("item", [(Image.new("L", (1, 1)), "cat"), (Image.new("L", (1, 1)), {}), (1, 2), (1, 2, 3), 4])
def test_what_is_no_classification_is_refused(odd, item):
    with pytest.raises(SourceError, match="not a classification data set"):
        odd(item)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ("torchvision:MNISTT", "no torchvision data set 'MNISTT' \\(nearest: 'MNIST'\\)"),
        ("torchvision:wrap_dataset_for_transforms_v2", "no torchvision data set"),
        ("torchvision:", "no torchvision data set ''"),
        ("torchvision:CocoDetection", "cannot be made without annFile"),
        ("torchvision:EMNIST", "Unknown value 'train' for argument split"),
        ("torchvision:FER2013", "Put the files under"),
    ],
)
def test_names_that_do_not_work(data, what, tmp_path):
    with pytest.raises(SourceError, match=what):
        open_source(data, tmp_path)


def test_damaged_files_are_an_error(tmp_path):
    root = write_mnist(tmp_path)
    (root / "MNIST/raw/train-labels-idx1-ubyte").write_bytes(b"nonsense")
    with pytest.raises(SourceError, match="cannot be opened"):
        open_source("torchvision:MNIST", root)


def test_a_failed_download_says_where_to_put_the_files(tmp_path, monkeypatch, capsys):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{closed.getsockname()[1]}/"])
        with pytest.raises(SourceError, match=r"cannot be downloaded: .*Connection refused") as caught:
            open_source("torchvision:MNIST", tmp_path)
    assert str(tmp_path) in caught.value.remedy
    assert capsys.readouterr().out == ""


def test_a_part_that_is_absent_leaves_the_others_with_a_note(tmp_path, monkeypatch):
    class Half(Odd):
        item, targets = (Image.new("L", (1, 1)), 1), [1, 1]

        def __init__(self, root: str, split: str = "train"):
            super().__init__(root, split)
            if split == "train":
                raise RuntimeError("train.csv not found")

    monkeypatch.setattr(datasets, "FER2013", Half)
    torchvision_sets._cached.cache_clear()
    source = open_source("torchvision:FER2013", tmp_path)
    assert {record.split for record in source.records} == {"val"}
    assert "split train: train.csv not found" in source.notes[0]
    torchvision_sets._cached.cache_clear()
