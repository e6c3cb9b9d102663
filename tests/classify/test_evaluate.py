import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score

from classify.evaluate import confusion, draw_resamples, evaluate, group_codes, per_class, wilson


@pytest.mark.parametrize(
    ("right", "n", "low", "high"), [(146, 153, 0.909, 0.978), (90, 100, 0.826, 0.945), (900, 1000, 0.880, 0.917)]
)
def test_wilson_as_published(right, n, low, high):
    assert wilson(right, n) == pytest.approx((low, high), abs=5e-4)


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_wilson_holds_the_share_and_stays_in_0_to_1(n, share):
    right = round(share * n)
    low, high = wilson(right, n)
    assert 0 <= low <= right / n + 1e-12
    assert right / n - 1e-12 <= high <= 1
    assert high > low


def test_metrics_are_sklearns():
    rng = np.random.default_rng(0)
    y, predicted = rng.integers(0, 4, 200), rng.integers(0, 5, 200)
    found = evaluate(y, predicted, draw_resamples(200, None, 0))
    assert found["accuracy"]["value"] == np.mean(y == predicted)
    assert found["macro_f1"]["value"] == pytest.approx(f1_score(y, predicted, average="macro"))
    known = predicted.clip(max=3)
    found = evaluate(y, known, draw_resamples(200, None, 0))
    assert found["balanced_accuracy"]["value"] == pytest.approx(balanced_accuracy_score(y, known))


def test_bootstrap_is_that_of_a_plain_loop():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 60)
    predicted = np.where(rng.random(60) < 0.7, y, rng.integers(0, 3, 60))
    resamples = draw_resamples(60, None, 5)
    found = evaluate(y, predicted, resamples)["macro_f1"]
    drawn = []
    for counts in resamples.counts.T:
        rows = np.repeat(np.arange(60), counts.astype(int))
        drawn.append(f1_score(y[rows], predicted[rows], average="macro"))
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=1e-9)


def test_groups_of_like_images_widen_every_interval():
    y = np.repeat(np.arange(2), 200)
    groups = np.repeat(np.arange(20), 20)
    predicted = np.where(np.isin(groups, [3, 8, 14]), 1 - y, y)
    alone = evaluate(y, predicted, draw_resamples(400, None, 0), np.abs(y - predicted) + 0.1)
    together = evaluate(y, predicted, draw_resamples(400, groups, 0), np.abs(y - predicted) + 0.1)
    for name in alone:
        assert together[name]["value"] == alone[name]["value"]
        assert together[name]["high"] - together[name]["low"] > 2 * (alone[name]["high"] - alone[name]["low"])


def test_an_unseen_label_is_an_error_in_every_metric():
    y, predicted = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 0, 1])
    found = evaluate(y, predicted, draw_resamples(6, None, 0))
    assert found["accuracy"]["value"] == pytest.approx(4 / 6)
    assert found["balanced_accuracy"]["value"] == pytest.approx(2 / 3)
    matrix = confusion(y, predicted, ["a", "b", "new"], 2)
    assert matrix == {"true": ["a", "b", "new"], "predicted": ["a", "b"], "counts": [[2, 0], [0, 2], [1, 1]]}
    assert per_class(matrix)[2] == {"class": "new", "precision": None, "recall": 0.0, "f1": 0.0, "support": 2}


def test_groups_and_equal_contents_make_chains():
    contents = [bytes([at + 1]) for at in (0, 1, 1, 2, 3, 3, 4)]
    codes = group_codes(["g", "g", "", "h", "", "", ""], contents)
    assert codes is not None
    same = codes[:, None] == codes
    expected = [[0, 1, 2], [0, 1, 2], [0, 1, 2], [3], [4, 5], [4, 5], [6]]
    assert [np.flatnonzero(row).tolist() for row in same] == expected


def test_images_that_all_stand_alone_have_no_groups():
    assert group_codes(["", ""], [b"1", b"2"]) is None
    assert group_codes(["", ""], [bytes(32), bytes(32)]) is None
    assert group_codes([], []) is None
