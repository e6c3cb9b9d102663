import numpy as np
import pytest

from classify.probe import path
from classify.probe.path import code_type, tiles, walk


@pytest.mark.parametrize("room", [8, 8 * 3 * 5, 8 * 3 * 40, 1 << 20])
def test_tiles_cover_every_row_and_penalty_once_and_stay_small(monkeypatch, room):
    monkeypatch.setattr(path, "SCORE_BYTES", room)
    covered = np.zeros((17, 4), int)
    for rows, lams in tiles(17, 4, 3):
        covered[rows, lams] += 1
        size = 8 * 3 * (rows.stop - rows.start) * (lams.stop - lams.start)
        assert size <= max(room, 8 * 3)
    assert (covered == 1).all()


@pytest.mark.parametrize(("k", "n_bytes"), [(2, 1), (128, 1), (129, 2), (32_768, 2), (32_769, 4)])
def test_codes_take_no_more_bytes_than_they_need(k, n_bytes):
    kind = code_type(k)
    assert kind.itemsize == n_bytes
    assert np.array([-1, k - 1]).astype(kind).tolist() == [-1, k - 1]


def test_codes_of_very_many_classes():
    def score(lams, keep):
        scores = np.zeros((2, len(lams), 40_000))
        scores[:, :, 39_999] = 1
        yield np.array([2, 0]), slice(0, len(lams)), keep(scores)

    found = walk(score, np.array([1.0, 2.0]), (3, 40_000), "by hand", 0.0)
    assert found.predicted.dtype == np.int32
    assert found.predicted.tolist() == [[39_999, -1, 39_999]] * 2
    assert found.scores(1)[0, 39_999] == 1
    assert np.isnan(found.scores(1)[1]).all()
