import numpy as np
import pytest

from classify.by_class import measured
from classify.evaluate import confusion, draw_resamples, per_class, wilson


def some(n=300, n_classes=4, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    return y, np.where(rng.random(n) < 0.8, y, rng.integers(0, n_classes, n))


def test_rows_that_stand_alone_have_wilsons_intervals():
    y, predicted = some()
    matrix = confusion(y, predicted, list("abcd"), 4)
    for code, row in enumerate(measured(matrix, y, predicted, draw_resamples(300, None, 0))):
        hits = ((y == code) & (predicted == code)).sum()
        for name, whole in (("recall", (y == code).sum()), ("precision", (predicted == code).sum())):
            found = row["intervals"][name]
            assert found["value"] == row[name] == hits / whole
            assert (found["low"], found["high"]) == pytest.approx(wilson(hits, whole))
        f1 = row["intervals"]["f1"]
        assert f1["low"] < row["f1"] == f1["value"] < f1["high"]
    found = measured(matrix, y, predicted, draw_resamples(300, None, 0))
    assert [{name: row[name] for name in row if name != "intervals"} for row in found] == per_class(matrix)


def test_groups_widen_the_intervals_of_every_class():
    y, predicted = some(60)
    y, predicted, groups = (np.repeat(each, 10) for each in (y, predicted, np.arange(60)))
    matrix = confusion(y, predicted, list("abcd"), 4)
    alone, together = (measured(matrix, y, predicted, draw_resamples(600, of, 0)) for of in (None, groups))
    for one, other in zip(alone, together, strict=True):
        for name in ("recall", "precision", "f1"):
            width, wider = (row["intervals"][name]["high"] - row["intervals"][name]["low"] for row in (one, other))
            assert wider > 1.5 * width


def test_what_is_all_right_or_all_wrong_is_not_certain():
    y, predicted = np.array([0, 0, 1, 1, 1, 2]), np.array([0, 0, 0, 0, 0, 0])
    found = measured(confusion(y, predicted, ["a", "b", "new"], 2), y, predicted, draw_resamples(6, None, 0))
    assert found[0]["intervals"]["recall"]["low"] < 0.5
    assert found[1]["intervals"]["recall"]["high"] > 0.5
    assert found[1]["precision"] is None
    assert set(found[1]["intervals"]) == set(found[2]["intervals"]) == {"recall", "f1"}
    assert 0 == found[1]["intervals"]["f1"]["low"] < found[1]["intervals"]["f1"]["high"] < 1
