from dataclasses import replace

import numpy as np
import pytest
from tiny_features import FakeFeatures

from classify.probe.rows import array_rows, block_slices, bytes_of, in_memory, read_rows, stored_rows, subset
from classify.scoring import signed_root_unit, unit
from extract.errors import FitError
from extract.store import FeatureSet
from tests.extract.store.tiny_cache import put_set


@pytest.fixture
def features(make_features) -> FakeFeatures:
    rng = np.random.default_rng(0)
    X = {"a": rng.normal(size=(40, 3)).astype(np.float32), "b": rng.normal(size=(40, 5)).astype(np.float32)}
    X["a"][4] = 0
    X["map"] = np.zeros((40, 2, 3, 3), np.float32)
    return make_features(np.zeros(40, np.int64), ["x"], X=X)


def gathered(rows) -> np.ndarray:
    found = np.full(rows.shape, np.nan)
    for at, block in rows.blocks():
        assert block.flags.c_contiguous
        assert np.isnan(found[at]).all()
        found[at] = block
    return found


def test_rows_in_memory_are_handed_out_as_views():
    X = np.arange(12, dtype=np.float32).reshape(6, 2)
    rows = replace(array_rows(X), block_bytes=16)
    blocks = list(rows.blocks())
    assert [(at.start, at.stop) for at, _ in blocks] == [(0, 2), (2, 4), (4, 6)]
    assert all(np.shares_memory(block, X) for _, block in blocks)
    assert (gathered(rows) == X).all()
    assert (rows.take(np.array([5, 0])) == X[[5, 0]]).all()


def test_halves_become_single_precision_and_doubles_stay():
    assert array_rows(np.ones((2, 2), np.float16)).take(np.array([0])).dtype == np.float32
    assert array_rows(np.ones((2, 2))).take(np.array([0])).dtype == np.float64


@pytest.mark.parametrize(("transform", "mapped"), [("std", lambda X: X), ("l2", unit), ("pow", signed_root_unit)])
def test_streamed_rows_are_those_of_the_features_after_their_map(features, transform, mapped):
    chosen = np.array([7, 3, 30, 4, 39, 0, 11])
    rows = replace(stored_rows(features, ("a",), transform, chosen), block_bytes=3 * 4 * 2)
    assert rows.shape == (7, 3)
    assert len(list(rows.blocks())) == 4
    expected = mapped(features.X["a"][chosen])
    assert (gathered(rows) == expected).all()
    assert (rows.take(np.array([6, 3])) == expected[[6, 3]]).all()


def test_rows_stream_from_the_shards_of_a_cache(tmp_path):
    stored = FeatureSet(put_set(tmp_path, [[0, 1, 2], [3, 4]]).index).check()
    chosen = np.array([4, 0, 3, 1])
    rows = replace(stored_rows(stored, ("a:gem", "penultimate"), "pow", chosen), block_bytes=5 * 4)
    expected = np.concatenate([unit(stored.read(layer, chosen)) for layer in ("a:gem", "penultimate")], axis=1)
    assert rows.shape == (4, 5)
    assert np.allclose(gathered(rows), signed_root_unit(expected), rtol=1e-6)


def test_several_layers_stand_side_by_side_each_of_length_1(features):
    rows = stored_rows(features, ("a", "b"), "none", np.arange(40))
    expected = np.concatenate([unit(features.X["a"]), unit(features.X["b"])], axis=1)
    assert rows.shape == (40, 8)
    assert (gathered(rows) == expected).all()
    assert (gathered(rows)[4, :3] == 0).all()


def test_rows_are_read_into_memory_where_there_is_room(features):
    chosen = np.arange(5, 25)
    room = bytes_of((20, 3))
    streamed, read = (read_rows(features, ("a",), "pow", chosen, room_bytes=each) for each in (room - 1, room))
    assert (in_memory(streamed), in_memory(read)) == (False, True)
    assert (gathered(streamed) == gathered(read)).all()


def test_what_is_no_number_is_refused(features):
    features.X["b"][9, 1] = np.inf
    read_rows(features, ("b",), "none", np.arange(9), room_bytes=0)
    with pytest.raises(FitError, match="'b' hold what is no number"):
        read_rows(features, ("b",), "none", np.arange(10), room_bytes=1 << 20)


def test_maps_are_refused(features):
    with pytest.raises(FitError, match="'map' is a map"):
        stored_rows(features, ("map",), "none", np.arange(3))


def test_an_unknown_transform_is_refused_before_anything_is_read(features):
    with pytest.raises(FitError, match=r"no transform 'st'.*nearest: 'std'"):
        stored_rows(features, ("a",), "st", np.arange(3))


def test_some_of_the_rows_are_rows_too():
    X = np.random.default_rng(0).normal(size=(9, 2))
    some = subset(array_rows(X), np.array([8, 2, 5]))
    assert some.shape == (3, 2)
    assert (gathered(some) == X[[8, 2, 5]]).all()
    assert (some.take(np.array([2, 0])) == X[[5, 8]]).all()
    assert in_memory(some)


def test_a_block_holds_a_row_however_long():
    assert list(block_slices((3, 1000), 4, block_bytes=8)) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert list(block_slices((0, 5), 4)) == []
