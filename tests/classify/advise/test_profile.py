import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classify.advise import profile
from classify.advise.profile import largest, make_profile
from classify.evaluate import draw_resamples

TAPS = [("layer1:grid:8", 4096), ("layer2:grid:5", 3200), ("layer3:grid:4", 4096), ("layer4:grid:2", 2048)]
N_CLASSES = 4
RISING = [0.5, 0.6, 0.7, 0.8], [0.4] * 4
"""Shares of right answers, layer by layer, with learned and with random weights."""


def answers(y: np.ndarray, shares: list[float], seed: int = 0) -> np.ndarray:
    """Codes (L, n) that are right with these shares; who finds it hard does so at every layer."""
    rng = np.random.default_rng(seed)
    ease = 0.7 * rng.random(len(y)) + 0.3 * rng.random((len(shares), len(y)))
    right = ease.argsort(axis=1).argsort(axis=1) < np.array(shares)[:, None] * len(y)
    return np.where(right, y, (y + 1) % N_CLASSES)


def profile_of(trained: list[float], fresh: list[float], n: int = 1000, groups: np.ndarray | None = None):
    y = np.arange(n) % N_CLASSES
    codes = [answers(y, trained), answers(y, fresh, seed=1)]
    return make_profile(TAPS, y, codes[0], codes[1], draw_resamples(n, groups, 0), "accuracy")


@pytest.mark.parametrize(
    ("similarity", "trained", "fresh", "n"),
    [
        ("similar", [0.50, 0.60, 0.70, 0.80], [0.40, 0.45, 0.40, 0.35], 1000),
        ("different", [0.60, 0.75, 0.80, 0.70], [0.40, 0.45, 0.40, 0.35], 1000),
        ("useless", [0.40, 0.45, 0.42, 0.40], [0.40, 0.45, 0.42, 0.40], 1000),
        ("useless", [0.40, 0.60, 0.42, 0.30], [0.40, 0.60, 0.42, 0.30], 1000),  # the best layer is an earlier one
        ("useless", [0.30, 0.35, 0.30, 0.30], [0.40, 0.45, 0.42, 0.40], 1000),  # what is learned does harm
        ("unclear", [0.40, 0.45, 0.42, 0.40], [0.40, 0.45, 0.42, 0.40], 40),  # nothing is told, and nothing is useless
        ("unclear", [0.50, 0.60, 0.799, 0.80], [0.40, 0.45, 0.40, 0.35], 200),
    ],
)
def test_the_reading_follows_from_planted_answers(similarity, trained, fresh, n):
    assert profile_of(trained, fresh, n).similarity == similarity


def test_the_numbers_are_those_of_plain_counts():
    found = profile_of([0.5, 0.6, 0.8, 0.7], [0.4, 0.5, 0.4, 0.3])
    assert [tap.layer for tap in found.taps] == [name for name, _ in TAPS]
    assert [tap.dims for tap in found.taps] == [dims for _, dims in TAPS]
    assert [tap.pretrained["value"] for tap in found.taps] == pytest.approx([0.5, 0.6, 0.8, 0.7])
    assert [tap.random["value"] for tap in found.taps] == pytest.approx([0.4, 0.5, 0.4, 0.3])
    assert [tap.gain["value"] for tap in found.taps] == pytest.approx([0.1, 0.1, 0.4, 0.4])
    assert (found.drop["value"], found.drop["layer"]) == (pytest.approx(0.1), "layer3:grid:4")
    assert found.gain["value"] == pytest.approx(0.4)
    assert (found.n, found.metric, found.last) == (1000, "accuracy", "layer4:grid:2")


def test_the_peak_is_the_earliest_layer_that_is_not_clearly_worse_than_the_best():
    assert profile_of([0.5, 0.6, 0.80, 0.801], [0.4] * 4).peak == "layer3:grid:4"
    assert profile_of([0.5, 0.6, 0.70, 0.80], [0.4] * 4).peak == "layer4:grid:2"
    assert profile_of([0.8, 0.8, 0.80, 0.80], [0.4] * 4).peak == "layer1:grid:8"


def test_another_metric_is_measured_where_classes_are_of_unequal_size():
    y = np.array([0] * 90 + [1] * 10)
    trained, fresh = np.stack([np.zeros(100, int), y]), np.stack([1 - y, 1 - y])
    found = make_profile(TAPS[:2], y, trained, fresh, draw_resamples(100, None, 0), "balanced_accuracy")
    assert [tap.pretrained["value"] for tap in found.taps] == [0.5, 1.0]
    assert found.drop["value"] == -0.5


def test_images_of_a_group_count_as_the_few_that_they_are():
    each, eight = (profile_of(*RISING, 125 * k) for k in (1, 8))
    y = np.repeat(np.arange(125) % N_CLASSES, 8)
    trained, fresh = (np.repeat(answers(y[::8], shares, seed), 8, axis=1) for seed, shares in enumerate(RISING))
    grouped = make_profile(TAPS, y, trained, fresh, draw_resamples(1000, np.arange(1000) // 8, 0), "accuracy")

    def width(found) -> float:
        return found.drop["high"] - found.drop["low"]

    assert width(grouped) == pytest.approx(width(each), rel=0.15)
    assert width(grouped) > 2 * width(eight)


def test_of_one_group_nothing_is_told():
    found = profile_of(*RISING, groups=np.zeros(1000, int))
    assert (found.drop["low"], found.drop["high"]) == (-1, 1)
    assert found.similarity == "unclear"


def test_answers_without_a_fault_give_numbers_and_json():
    found = profile_of([1.0] * 4, [1.0] * 4, n=100)
    assert found.drop | {"layer": ""} == {"value": 0.0, "low": 0.0, "high": 0.0, "layer": ""}
    said = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert set(said) == {
        "taps", "drop", "gain", "peak", "last", "n", "metric", "seconds", "similarity", "words"
    }  # fmt: skip
    assert set(said["taps"][0]) == {"layer", "dims", "pretrained", "random", "gain"}


def test_words_have_the_numbers_and_their_intervals():
    found = profile_of([0.60, 0.75, 0.80, 0.70], [0.4, 0.45, 0.4, 0.35])
    end = found.taps[-1].pretrained
    assert found.words.startswith(profile.SAID["different"])
    assert f"accuracy 70.0% ({end['low']:.1%} to {end['high']:.1%}) at layer4:grid:2" in found.words
    assert f"layer3:grid:4, the best before it, +10.0 points ({100 * found.drop['low']:+.1f} to" in found.words
    assert "(1,000 images)" in found.words
    assert set(profile.SAID) == {*profile.READINGS, profile.UNCLEAR}


def test_half_a_point_is_what_the_last_layer_may_lack():
    found = profile_of([0.50, 0.60, 0.70, 0.80], [0.4] * 4)
    assert replace(found, drop=found.drop | {"high": profile.SAME}).similarity == "similar"
    assert replace(found, drop=found.drop | {"high": profile.SAME + 1e-9}).similarity == "unclear"


def errors(k: int, seed: int, n: int = 2000) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(k, n))


def plain_largest(values: np.ndarray, draws: np.ndarray) -> dict[str, float]:
    """The same by loops over differences and draws."""
    sd = [np.std(draws[i] - values[i], ddof=1) for i in range(len(values))]
    worst = [max((draws[i, b] - values[i]) / sd[i] for i in range(len(values))) for b in range(draws.shape[1])]
    bound = np.quantile(worst, 0.975)
    low = max(v - bound * s for v, s in zip(values, sd, strict=True))
    return {"value": max(values), "low": low, "high": max(np.quantile(each, 0.975) for each in draws)}


def test_no_interval_says_more_than_shares_can_differ_by():
    y = np.arange(6) % 3
    trained = np.where(np.arange(6) < np.array([[1], [3], [6]]), y, (y + 1) % 3)
    found = make_profile(
        TAPS[:3], y, trained, (y + 1) % 3 + np.zeros((3, 1), int), draw_resamples(6, None, 0), "accuracy"
    )
    assert found.drop["value"] == -0.5
    assert found.drop["low"] == -1
    assert found.gain["value"] == found.gain["high"] == 1


def test_the_largest_is_that_of_a_plain_loop():
    values = np.array([0.1, -0.3, 0.12])
    draws = values[:, None] + errors(3, 0, 400) * [[0.02], [0.5], [0.04]]
    found, at = largest(values, draws)
    assert at == 2
    assert found == pytest.approx(plain_largest(values, draws))


def test_of_one_difference_it_is_the_usual_interval():
    draws = 0.2 + 0.1 * errors(1, 3)
    found, _ = largest(np.array([0.2]), draws)
    low, high = np.quantile(draws, [0.025, 0.975])
    assert found["low"] == pytest.approx(low, abs=0.01)
    assert found["high"] == pytest.approx(high)


def test_of_equal_differences_the_largest_is_called_positive_as_seldom_as_it_should_be():
    wrong = {"ours": 0, "percentile": 0}
    for seed in range(300):
        values = errors(4, seed, 1)[:, 0]
        draws = values[:, None] + errors(4, seed + 1000, 300)
        wrong["ours"] += largest(values, draws)[0]["low"] > 0
        wrong["percentile"] += np.quantile(draws.max(axis=0), 0.025) > 0
    assert wrong["ours"] <= 15  # 2.5 % of 300 is 7.5
    assert wrong["percentile"] >= 100


shifts = st.floats(-1, 1)


@settings(max_examples=40)
@given(values=st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=5), shift=shifts, seed=st.integers(0, 99))
def test_the_interval_holds_the_value_moves_with_it_and_no_hopeless_rival_raises_it(values, shift, seed):
    centre = np.array(values)
    draws = centre[:, None] + 0.05 * errors(len(values), seed, 200)
    found, at = largest(centre, draws)
    assert found["low"] <= found["value"] == values[at] == max(values) <= found["high"]
    moved, _ = largest(centre + shift, draws + shift)
    assert list(moved.values()) == pytest.approx([each + shift for each in found.values()], abs=1e-9)
    hopeless = -9.0 + 0.05 * errors(1, seed + 100, 200)
    more, _ = largest(np.append(centre, -9.0), np.concatenate([draws, hopeless]))
    assert more["low"] <= found["low"] + 1e-12
    assert more["high"] == found["high"]
    wider, _ = largest(centre, draws, widening=2.0)
    assert wider["low"] <= found["low"]
    assert wider["high"] >= found["high"]
