from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from extract.errors import StoreError
from extract.run import extract
from extract.store import FeatureSet, open_features
from extract.torch_dataset import FeatureDataset
from tests.tiny import put, tiny_folder, tiny_spec


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("torch")
    data = tiny_folder(folder / "pets")
    (data / "cat/bad.png").write_bytes(b"words")
    extract(tiny_spec(data, folder / "cache"))
    return folder / "cache"


@pytest.fixture
def features(cache) -> FeatureSet:
    return open_features("pets", cache)


def test_items_are_the_good_rows_with_their_labels(features):
    dataset = FeatureDataset(features)
    assert len(dataset) == 8
    for i, row in enumerate(features.rows()):
        x, y = dataset[i]
        np.testing.assert_array_equal(x.numpy(), features.read("penultimate", [row])[0])
        assert y == features.labels[row]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_every_row_once_in_whole_batches(cache, workers):
    dataset = FeatureDataset.open("pets", cache, "layer1")
    loader = DataLoader(
        dataset,
        batch_size=3,
        shuffle=True,
        num_workers=workers,
        generator=torch.Generator().manual_seed(0),
        multiprocessing_context="spawn" if workers else None,
    )
    batches = list(loader)
    assert [tuple(x.shape) for x, _ in batches] == [(3, 32), (3, 32), (2, 32)]
    seen = torch.cat([x for x, _ in batches]).numpy()
    expected = dataset.features.read("layer1", dataset.features.rows())
    assert sorted(map(bytes, seen)) == sorted(map(bytes, expected))
    assert sum(int(y.sum()) for _, y in batches) == 4


def test_a_batch_is_one_read(features, monkeypatch):
    calls = []
    real = FeatureSet.read
    monkeypatch.setattr(FeatureSet, "read", lambda *given: calls.append(1) or real(*given))
    list(DataLoader(FeatureDataset(features), batch_size=4))
    assert len(calls) == 2


def test_a_worker_that_would_see_other_rows_is_told(tmp_path):
    data = tiny_folder(tmp_path / "pets")
    extract(tiny_spec(data, tmp_path / "cache"))
    dataset = FeatureDataset.open("pets", tmp_path / "cache")
    put(data / "cat/new.png", 99)
    extract(tiny_spec(data, tmp_path / "cache"))
    rebuild, state = dataset.features.__reduce__()
    with pytest.raises(StoreError, match="replaced meanwhile"):
        rebuild(*state)
    assert len(dataset) == len([dataset[i] for i in range(len(dataset))]) == 8
