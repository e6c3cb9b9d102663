from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from classify.bundle import Bundle
from classify.export.compare import TOLERANCE, accuracy_lost, agreement, check, hits
from extract.batches import Loaded
from extract.errors import ExportError
from extract.record import Record

SINGLE = cast(Bundle, SimpleNamespace(task="single", classes=["a", "b"], head="logistic"))
MULTI = cast(Bundle, SimpleNamespace(task="multi", classes=["a", "b"], head="logistic", label_thresholds=(0.5, 0.5)))


def shares(*first: float) -> np.ndarray:
    """Probabilities of the classes a and b, by that of a."""
    column = np.array(first)
    return np.stack([column, 1 - column], axis=1)


def test_equal_answers_agree_and_bad_images_do_not_count():
    expected = shares(0.9, np.nan, 0.2)
    found = check(SINGLE, expected, shares(0.9, 0.1, 0.2 + TOLERANCE / 2))
    assert (found.n, found.other_labels) == (2, 0)
    assert found.gap == pytest.approx(TOLERANCE / 2)


@pytest.mark.parametrize("given", [shares(0.9, 0.2 + 2 * TOLERANCE), shares(0.9, np.nan), shares(0.1, 0.2)])
def test_other_answers_are_refused(given):
    with pytest.raises(ExportError, match="answers otherwise than predict"):
        check(SINGLE, shares(0.9, 0.2), given)


def test_no_image_at_all_proves_nothing():
    with pytest.raises(ExportError, match="not one image could be read"):
        check(SINGLE, shares(np.nan, np.nan), shares(0.1, 0.2))


def test_two_labels_of_one_probability_are_the_same_answer():
    found = agreement(SINGLE, shares(0.5 + TOLERANCE / 8, 0.6, 0.4), shares(0.5 - TOLERANCE / 8, 0.4, 0.3))
    assert found.other_labels == 1


def test_of_several_labels_each_counts_unless_it_lies_at_its_threshold():
    expected = np.array([[0.5, 0.9], [0.7, 0.9], [0.1, 0.2]])
    given = np.array([[0.5 - TOLERANCE / 2, 0.9], [0.3, 0.9], [0.1, 0.2]])
    assert agreement(MULTI, expected, given).other_labels == 1


def records(*labels: str | None) -> list[Record]:
    return [Record(str(at), "", label) for at, label in enumerate(labels)]


def items(n: int) -> list[Loaded]:
    return [Loaded(bytes([at]) * 32, None, 0.0, 0.0) for at in range(n)]


def test_the_accuracy_that_is_lost_is_counted_on_labelled_good_images():
    known = records("a", "a", "b", None, "b", "new")
    before = shares(0.9, 0.8, 0.1, 0.9, np.nan, 0.9)
    after = shares(0.9, 0.2, 0.1, 0.1, 0.1, 0.1)
    lost: Any = accuracy_lost(SINGLE, known, items(6), before, after)
    assert (lost["n"], lost["fp32"], lost["int8"]) == (4, 0.75, 0.5)
    assert lost["loss"]["value"] == pytest.approx(0.25)
    assert lost["loss"]["low"] <= 0.25 <= lost["loss"]["high"]


def test_without_labels_no_accuracy_is_claimed():
    assert accuracy_lost(SINGLE, records(None, None), items(2), shares(0.9, 0.1), shares(0.9, 0.1)) is None


def test_several_labels_hit_only_all_together():
    found = hits(MULTI, records("a|b", "a", "-", "a|new"), np.array([[0.9, 0.9], [0.9, 0.9], [0.1, 0.1], [0.9, 0.1]]))
    assert found.tolist() == [1, 0, 1, 0]
