import numpy as np
import pytest

from classify.hygiene.neighbours import seconds_for, to_unit
from classify.hygiene.outliers import THRESHOLD, Outliers, find_outliers

N = 300
HALF_AS_LONG = 0.6 * seconds_for(N, 8)


def clouds(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds of directions, and three rows that point elsewhere, at the end of the first class."""
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1], N // 2)
    X = 4 * np.eye(8)[y] + 0.4 * rng.normal(size=(N, 8))
    X[147:150] = -4 * np.eye(8)[[3, 4, 5]] + 0.1 * rng.normal(size=(3, 8))
    return to_unit(X.astype(np.float32)), y


def outliers_of(unit: np.ndarray, y: np.ndarray, **options: float) -> Outliers:
    return find_outliers(lambda at: unit[at], unit.shape[1], y, **options)


def kth_distance(unit: np.ndarray, k: int) -> np.ndarray:
    distance = 1 - unit.astype(np.float64) @ unit.astype(np.float64).T
    return np.sort(distance, axis=1)[:, k]  # the first is the row itself


def test_what_points_elsewhere_is_found() -> None:
    unit, y = clouds()
    found = outliers_of(unit, y)
    assert sorted(found.at[:3].tolist()) == [147, 148, 149]
    assert (found.among, found.note) == ("all", "")
    assert len(found) < 0.05 * N
    assert (np.diff(found.score) <= 0).all()


def test_distance_and_score_are_those_of_a_plain_computation() -> None:
    unit, y = clouds()
    found = outliers_of(unit, y)
    plain = kth_distance(unit, 12)  # the root of 150 rows a class
    usual = np.median(plain)
    score = (plain - usual) / (1.4826 * np.median(abs(plain - usual)))
    np.testing.assert_allclose(found.distance, plain[found.at], atol=1e-5)
    np.testing.assert_allclose(found.score, score[found.at], rtol=1e-3)
    assert sorted(found.at.tolist()) == np.flatnonzero(score > THRESHOLD).tolist()


def test_class_by_class_where_all_would_take_too_long_and_said_so() -> None:
    unit, y = clouds()
    found = outliers_of(unit, y, max_seconds=HALF_AS_LONG)
    assert found.among == "class"
    assert "class by class" in found.note
    assert sorted(found.at[:3].tolist()) == [147, 148, 149]
    np.testing.assert_allclose(found.distance[0], kth_distance(unit[:150], 12)[found.at[0]], atol=1e-5)


def test_nothing_is_searched_beyond_the_time_or_among_a_few() -> None:
    unit, y = clouds()
    late, few = outliers_of(unit, y, max_seconds=0), outliers_of(unit[:20], y[:20])
    assert (len(late), late.among) == (0, "nothing")
    assert "minutes" in late.note
    assert (len(few), few.among) == (0, "nothing")
    assert "fewer than" in few.note


def test_classes_of_a_few_are_passed_over_class_by_class() -> None:
    unit, _ = clouds()
    y = np.repeat([0, 1, 2], [140, 150, 10])
    found = outliers_of(unit, y, max_seconds=HALF_AS_LONG)
    assert found.among == "class"
    assert found.at.max() < 290


@pytest.mark.parametrize("row", [[1, 0], [0, 0]])
def test_rows_that_are_all_alike_have_no_outliers(row: list[float]) -> None:
    found = outliers_of(np.array([row] * 40, np.float32), np.zeros(40, np.int64))
    assert len(found) == 0
