from dataclasses import replace

import numpy as np
import pytest

from classify.probe import passes
from classify.probe.backend import numpy_backend
from classify.probe.passes import Folded, Passes, cut
from classify.probe.rows import ArrayRows, array_rows

X = np.zeros((1000, 4), np.float32)
COLUMNS = 30


@pytest.mark.parametrize(
    ("width", "most", "sizes"),
    [
        (1, 1000, [700, 300]),
        (2, 1000, [350, 350, 256, 44]),
        (2, 300, [256, 256, 188, 256, 44]),
        (1, 300, [256, 256, 188, 300]),
    ],
)
def test_work_is_cut_alike_for_all_cores_and_no_piece_is_too_large_or_too_small(width, most, sizes):
    blocks = ArrayRows(X, block_bytes=X[:700].nbytes).blocks
    with numpy_backend() as cores:
        found = list(cut(replace(cores, width=width, chunk=most * COLUMNS), blocks, COLUMNS))
    assert [len(chunk) for _, chunk in found] == sizes
    assert np.concatenate([np.arange(1000)[at] for at, _ in found]).tolist() == list(range(1000))


def summed(Z, weight, y, folded):
    """What one pass has to give, problem by problem and row by row."""
    values, G, g = [], [], []
    for W, b, mask in zip(folded.weights, folded.bias, folded.masks, strict=True):
        S = Z @ W.T + b
        shares = np.exp(S) / np.exp(S).sum(axis=1, keepdims=True)
        values.append(-np.log(shares[np.arange(len(y)), y]) @ weight[mask])
        R = (shares - np.eye(3)[y]) * weight[mask][:, None]
        G.append(R.T @ Z)
        g.append(R.sum(axis=0))
    return values, G, g


@pytest.fixture
def sums():
    rng = np.random.default_rng(0)
    Z, y = rng.normal(size=(60, 5)), rng.integers(0, 3, 60)
    part = rng.permutation(60) % 4  # three folds, and rows that nobody trains on
    weight = (rng.uniform(0.5, 2, 60) * ((part != np.arange(3)[:, None]) & (part != 3))).astype(np.float32)
    folded = Folded(rng.normal(size=(7, 3, 5)), rng.normal(size=(7, 3)), np.array([0, 1, 2, 0, 2, 2, 1]))
    return Z, weight, y, folded


@pytest.mark.parametrize("block_bytes", [60 * 5 * 8, 23 * 5 * 8])
@pytest.mark.parametrize("least", [4, 100])
def test_sums_are_those_of_a_loop_whatever_the_order_of_the_rows(monkeypatch, sums, least, block_bytes):
    Z, weight, y, folded = sums
    monkeypatch.setattr(passes, "MIN_CHUNK_ROWS", least)
    monkeypatch.setattr(passes, "array_rows", lambda X: ArrayRows(X, block_bytes))
    with numpy_backend() as cores:
        prepared = Passes.of(replace(cores, width=2), ArrayRows(Z, block_bytes), y, weight, "softmax")
        assert len(prepared.edges) == (3 if least == 4 else 0)
        for found, expected in zip(prepared.run(folded, "float64"), summed(Z, weight, y, folded), strict=True):
            assert found == pytest.approx(np.array(expected), rel=1e-6, abs=1e-9)


def test_no_problem_meets_rows_that_it_gives_no_weight(monkeypatch, sums):
    Z, weight, y, folded = sums
    monkeypatch.setattr(passes, "MIN_CHUNK_ROWS", 4)
    met = np.zeros(7, int)
    plain = passes.LOSSES["softmax"]

    def counted(xp, S, y, w):
        assert (w > 0).all()
        met[: len(w)] += 1
        return plain(xp, S, y, w)

    monkeypatch.setitem(passes.LOSSES, "softmax", counted)
    with numpy_backend() as cores:
        Passes.of(cores, array_rows(Z), y, weight, "softmax").run(folded, "float64")
    assert met.any()


def test_rows_that_are_streamed_stay_in_order(monkeypatch, sums):
    Z, weight, y, folded = sums
    monkeypatch.setattr(passes, "MIN_CHUNK_ROWS", 4)
    monkeypatch.setattr(passes, "in_memory", lambda rows: False)
    with numpy_backend() as cores:
        prepared = Passes.of(cores, array_rows(Z), y, weight, "softmax")
        assert not len(prepared.edges)
        assert prepared.run(folded, "float64")[0] == pytest.approx(np.array(summed(Z, weight, y, folded)[0]))
