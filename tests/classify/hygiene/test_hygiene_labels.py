import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from classify.hygiene.labels import label_issues
from extract.errors import FitError

N, CLASSES, NOISE = 1200, 6, 0.05


def noisy_set(seed: int, distance: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Overlapping clouds with 5 % wrong labels: -> X (n, 16), given y (n,), wrong (n,) bool."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, CLASSES, N)
    X = distance * rng.normal(size=(CLASSES, 16))[true] + rng.normal(size=(N, 16))
    wrong = np.zeros(N, dtype=bool)
    wrong[rng.choice(N, round(NOISE * N), replace=False)] = True
    return X, np.where(wrong, (true + rng.integers(1, CLASSES, N)) % CLASSES, true), wrong


def out_of_fold(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(cross_val_predict(LogisticRegression(C=0.1), X, y, cv=5, method="predict_proba"))


@pytest.mark.parametrize("seed", range(3))
def test_planted_wrong_labels_are_found_and_few_others(seed: int) -> None:
    X, y, wrong = noisy_set(seed)
    found = label_issues(out_of_fold(X, y), y)
    hits = wrong[found.at].sum()
    assert hits / wrong.sum() >= 0.6
    assert hits / len(found) >= 0.6
    assert found.n_checked == N
    assert f"{len(found)} of {N} labels" in found.words


def test_issues_come_most_suspect_first_with_a_better_label() -> None:
    X, y, _ = noisy_set(0)
    shares = out_of_fold(X, y)
    found = label_issues(shares, y)
    assert (np.diff(found.probability) >= 0).all()
    np.testing.assert_allclose(found.probability, shares[found.at, y[found.at]])
    np.testing.assert_array_equal(found.suggested, shares[found.at].argmax(axis=1))
    assert (found.suggested != y[found.at]).all()
    rivals = [np.delete(shares[at], y[at]).max() for at in found.at]
    np.testing.assert_allclose(found.margin, (found.probability - rivals + 1) / 2)
    assert (found.margin < 0.5).all()


def test_a_head_that_is_often_wrong_says_little_of_labels() -> None:
    X, y, _ = noisy_set(0, distance=0.25)
    shares = out_of_fold(X, y)
    found = label_issues(shares, y)
    assert len(found) > 0.2 * N
    assert found.agreed == (shares.argmax(axis=1) == y).mean()
    assert "probably wrong" not in found.words
    assert f"right in {found.agreed:.0%} only: most of these are errors of the head" in found.words


def test_labels_that_are_right_are_left_in_peace() -> None:
    y = np.repeat(np.arange(4), 25)
    shares = np.full((100, 4), 0.02)
    shares[np.arange(100), y] = 0.94
    found = label_issues(shares, y)
    assert len(found) == 0
    assert found.words.startswith("no label looks wrong")


def test_rows_without_probabilities_and_of_unknown_classes_are_not_judged() -> None:
    X, y, _ = noisy_set(1)
    shares = out_of_fold(X, y)
    plain = label_issues(shares, y)
    more = np.vstack([np.full((3, CLASSES), np.nan), shares, shares[:2]])
    found = label_issues(more, np.concatenate([y[:3], y, [CLASSES, -1]]))
    np.testing.assert_array_equal(found.at, plain.at + 3)
    np.testing.assert_array_equal(found.probability, plain.probability)
    assert found.n_checked == N


def test_a_class_that_no_row_has_is_no_trouble() -> None:
    X, y, _ = noisy_set(2)
    shares = out_of_fold(X, y)
    padded = np.insert(shares, 3, 0.0, axis=1)
    found = label_issues(padded, y + (y >= 3))
    np.testing.assert_array_equal(found.at, label_issues(shares, y).at)


@pytest.mark.parametrize("y", [[], [1, 1, 1]])
def test_nothing_is_found_where_there_is_nothing_to_compare(y: list[int]) -> None:
    found = label_issues(np.full((len(y), 2), 0.5), np.array(y, np.int64))
    assert len(found) == 0
    assert found.words.startswith("no label")


def test_what_are_no_probabilities_is_refused() -> None:
    with pytest.raises(FitError, match="add up to 1"):
        label_issues(np.array([[2.0, -1.0], [0.5, 0.5]]), np.array([0, 1]))
