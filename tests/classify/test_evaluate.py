import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, f1_score

from classify import evaluate as module
from classify.evaluate import confusion, draw_resamples, evaluate, group_codes, interval, per_class, wilson


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
    wide = stats.t.ppf(0.975, 59) / stats.norm.ppf(0.975) * np.sqrt(60 / 59)
    low, high = found["value"] + wide * (np.quantile(drawn, [0.025, 0.975]) - found["value"])
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-9)


def speakers(rng, n_groups, rows=50):
    """Rows of a few people, each of whom is right at a rate of their own, 80 % on average: -> y, predicted, groups."""
    rate = np.clip(rng.normal(0.8, 0.1, n_groups), 0.4, 1)
    groups = np.repeat(np.arange(n_groups), rows)
    y = np.arange(len(groups)) % 2
    return y, np.where(rng.random(len(y)) < rate[groups], y, 1 - y), groups


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "log_loss"])
def test_intervals_over_a_few_groups_hold_the_truth_as_often_as_they_say(name):
    held = []
    for seed in range(100):
        y, predicted, groups = speakers(np.random.default_rng(seed), 5)
        resamples = draw_resamples(len(y), groups, seed)
        found = evaluate(y, predicted, resamples, (y != predicted).astype(float))[name]
        held.append(found["low"] <= (0.2 if name == "log_loss" else 0.8) <= found["high"])
    assert np.mean(held) >= 0.9


def test_one_group_says_next_to_nothing_of_others():
    y, predicted, groups = speakers(np.random.default_rng(0), 1)
    found = evaluate(y, predicted, draw_resamples(len(y), groups, 0), np.linspace(0.1, 0.3, len(y)))
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert found[name]["high"] - found[name]["low"] > 0.7
    assert (found["log_loss"]["low"], found["log_loss"]["high"]) == pytest.approx((0.1, 0.3))


def test_many_groups_or_rows_widen_nothing():
    assert draw_resamples(5000, None, 0).widening == pytest.approx(1, abs=1e-3)
    assert draw_resamples(4, np.array([0, 0, 1, 1]), 0).widening == pytest.approx(9.17, abs=0.01)
    assert draw_resamples(101, np.array([0] * 100 + [1]), 0).widening == pytest.approx(9.17, abs=0.01)


def test_an_interval_is_of_the_draws_that_have_a_value():
    assert interval(0.5, np.array([np.nan, 0.6, 0.6])) == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.6})
    assert interval(0.5, np.array([np.nan])) == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert interval(0.5, np.array([0.6, 0.6]), 9.0) == pytest.approx({"value": 0.5, "low": 0.5, "high": 1.0})


@pytest.mark.parametrize("grouped", [False, True])
def test_very_many_rows_are_drawn_in_parts_and_their_intervals_are_the_same(grouped, monkeypatch):
    rng = np.random.default_rng(3)
    y = rng.integers(0, 6, 6000)
    predicted = np.where(rng.random(6000) < 0.8, y, rng.integers(0, 6, 6000))
    groups = np.arange(6000) // 3 if grouped else None
    one_by_one = evaluate(y, predicted, draw_resamples(6000, groups, 0), (y != predicted) + 0.5)
    monkeypatch.setattr(module, "MAX_UNITS", 500)
    resamples = draw_resamples(6000, groups, 0)
    assert resamples.counts.shape == (500, 1000)
    assert resamples.counts.sum(axis=0).tolist() == [500] * 1000
    assert not grouped or (resamples.unit.reshape(-1, 3) == resamples.unit[::3, None]).all()
    in_parts = evaluate(y, predicted, resamples, (y != predicted) + 0.5)
    for name, found in one_by_one.items():
        width = found["high"] - found["low"]
        assert in_parts[name]["value"] == found["value"]
        assert in_parts[name]["high"] - in_parts[name]["low"] == pytest.approx(width, rel=0.12)


def test_codes_of_a_small_type_are_counted_as_they_are():
    y = np.arange(400) % 100
    predicted = np.roll(y, 7)
    resamples = draw_resamples(400, None, 0)
    assert evaluate(y, predicted.astype(np.int8), resamples) == evaluate(y, predicted, resamples)


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


@settings(max_examples=50)
@given(
    groups=st.lists(st.sampled_from(["", "", "", "x", "y"]), min_size=1, max_size=8),
    contents=st.lists(st.sampled_from([b"\0", b"\1", b"\2"]), min_size=8, max_size=8),
    near=st.lists(st.integers(0, 5), min_size=8, max_size=8),
)
def test_what_belongs_together_is_what_a_plain_search_joins(groups, contents, near):
    n = len(groups)
    contents, near = contents[:n], np.array(near[:n])
    belongs = near[:, None] == near
    for a in range(n):
        for b in range(n):
            belongs[a, b] |= contents[a] == contents[b] != b"\0" or groups[a] == groups[b] != ""
    for _ in range(n):
        belongs = belongs @ belongs
    found = group_codes(groups, contents, near)
    codes = np.arange(n) if found is None else found
    np.testing.assert_array_equal(codes[:, None] == codes, belongs)
    assert (found is None) == (not any(groups) and len(set(codes.tolist())) == n)
