import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify.finetune.evidence import gain
from classify.folds import Part


def scores_of(codes: np.ndarray, n_classes: int = 3) -> np.ndarray:
    return np.eye(n_classes)[codes]


def part(y: np.ndarray, groups: np.ndarray | None = None) -> Part:
    return Part(np.arange(len(y)), y, groups)


@given(st.integers(0, 2**32 - 1), st.integers(5, 60))
def test_a_gain_is_the_difference_of_both_and_the_other_way_round_a_loss(seed, n):
    rng = np.random.default_rng(seed)
    y, a, b = rng.integers(0, 3, (3, n))
    there, back = (gain(part(y), scores_of(x), scores_of(z), 0)["accuracy"] for x, z in ((a, b), (b, a)))
    assert there["value"] == pytest.approx((a == y).mean() - (b == y).mean())
    assert back["value"] == pytest.approx(-there["value"])
    assert there["low"] <= there["value"] <= there["high"]
    assert (back["low"], back["high"]) == pytest.approx((-there["high"], -there["low"]), abs=1e-6)


def test_images_of_one_group_are_worth_one():
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(20) < 0.7, 10)
    y = np.zeros(200, np.int64)
    alone, grouped = (
        gain(part(y, groups), scores_of(np.where(right, 0, 1)), scores_of(np.ones(200, np.int64)), 0)["accuracy"]
        for groups in (None, np.repeat(np.arange(20), 10))
    )
    assert grouped["value"] == alone["value"]
    assert grouped["high"] - grouped["low"] > 2 * (alone["high"] - alone["low"])


def test_labels_that_no_class_has_are_errors_of_both():
    y = np.array([0, 1, 3, 3])
    found = gain(part(y), scores_of(np.array([0, 1, 2, 2])), scores_of(np.array([0, 0, 2, 2])), 0)
    assert found["accuracy"]["value"] == 0.25
    assert found["n"] == 4
