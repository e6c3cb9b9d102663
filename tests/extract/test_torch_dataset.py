from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from extract.errors import StoreError
from extract.store import FeatureSet, open_features
from extract.torch_dataset import FeatureDataset
from tests.extract.store.tiny_cache import SEEN, put_set, values_of

CONTENTS = [0, 1, 2, 3, 4, 5, 6, 7, 8]
BAD = [4]
GOOD = [i for i in CONTENTS if i not in BAD]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("torch")
    put_set(folder, [CONTENTS[:5], CONTENTS[5:]], SEEN, name="pets", bad=BAD)
    return folder


@pytest.fixture
def features(cache) -> FeatureSet:
    return open_features("pets", cache)


def test_items_are_the_good_rows_with_their_labels(features):
    dataset = FeatureDataset(features)
    assert len(dataset) == 8
    expected = values_of(GOOD, "penultimate")
    for i, row in enumerate(features.rows()):
        x, y = dataset[i]
        np.testing.assert_array_equal(x.numpy(), expected[i])
        assert y == features.labels[row]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_every_row_once_in_whole_batches(cache, workers):
    dataset = FeatureDataset.open("pets", cache, "penultimate@1")
    loader = DataLoader(
        dataset,
        batch_size=3,
        shuffle=True,
        num_workers=workers,
        generator=torch.Generator().manual_seed(0),
        multiprocessing_context="spawn" if workers else None,
    )
    batches = list(loader)
    assert [tuple(x.shape) for x, _ in batches] == [(3, 3), (3, 3), (2, 3)]
    seen = torch.cat([x for x, _ in batches]).numpy()
    expected = values_of(GOOD, "penultimate@1").astype(np.float32)
    assert sorted(map(bytes, seen)) == sorted(map(bytes, expected))
    labels = dataset.features.labels[dataset.features.rows()]
    assert sorted(int(label) for _, y in batches for label in y) == sorted(labels.tolist())


@pytest.mark.parametrize("layer", ["a:map", "a:map@2"])
def test_maps_are_items_too(features, layer):
    [(X, y)] = DataLoader(FeatureDataset(features, layer, [8, 0, 3]), batch_size=9)
    assert X.dtype == torch.float32
    np.testing.assert_array_equal(X.numpy(), values_of([8, 0, 3], layer))
    assert y.tolist() == features.labels[[8, 0, 3]].tolist()


def test_a_layer_that_is_not_stored_is_refused_at_once(features):
    with pytest.raises(StoreError, match=r"no layer 'a:map@3' .*end in @1 to @2\. Known: a:map, penultimate"):
        FeatureDataset(features, "a:map@3")


def test_a_batch_is_one_read(features, monkeypatch):
    calls = []
    real = FeatureSet.read
    monkeypatch.setattr(FeatureSet, "read", lambda *given: calls.append(1) or real(*given))
    list(DataLoader(FeatureDataset(features), batch_size=4))
    assert len(calls) == 2


def test_a_worker_that_would_see_other_rows_is_told(tmp_path):
    put_set(tmp_path, [[0, 1]])
    dataset = FeatureDataset.open("set", tmp_path)
    put_set(tmp_path, [[0, 1], [2]])
    rebuild, state = dataset.features.__reduce__()
    with pytest.raises(StoreError, match="replaced meanwhile"):
        rebuild(*state)
    assert len(dataset) == len([dataset[i] for i in range(len(dataset))]) == 2
