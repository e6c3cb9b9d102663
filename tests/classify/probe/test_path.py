import numpy as np
import pytest

from classify.probe import path
from classify.probe.path import tiles, walk


@pytest.mark.parametrize("room", [8, 8 * 3 * 5, 8 * 3 * 40, 1 << 20])
def test_tiles_cover_every_row_and_penalty_once_and_stay_small(monkeypatch, room):
    monkeypatch.setattr(path, "SCORE_BYTES", room)
    covered = np.zeros((17, 4), int)
    for rows, lams in tiles(17, 4, 3):
        covered[rows, lams] += 1
        size = 8 * 3 * (rows.stop - rows.start) * (lams.stop - lams.start)
        assert size <= max(room, 8 * 3)
    assert (covered == 1).all()


def test_codes_take_two_bytes_and_four_for_very_many_classes():
    def score(lams, keep):
        scores = np.zeros((2, len(lams), 40_000))
        scores[:, :, 39_999] = 1
        yield np.array([2, 0]), slice(0, len(lams)), keep(scores)

    found = walk(score, np.array([1.0, 2.0]), (3, 40_000), "by hand", 0.0)
    assert found.predicted.dtype == np.int32
    assert found.predicted.tolist() == [[39_999, -1, 39_999]] * 2
    assert found.scores(1)[0, 39_999] == 1
    assert np.isnan(found.scores(1)[1]).all()
