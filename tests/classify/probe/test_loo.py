import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from classify.probe import loo, path
from classify.probe.loo import loo_path
from classify.probe.path import penalties
from classify.probe.ridge import targets
from classify.probe.rows import array_rows

SHAPES = [(40, 6), (15, 30)]
LAMS = np.array([0.01, 1.0, 100.0])


def problem(n: int, dims: int, k: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of k overlapping classes, each of two rows or more, and their codes."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % k)
    return rng.normal(size=(n, dims)) * np.linspace(0.5, 4, dims) + rng.normal(size=(k, dims))[y] + 2, y


def left_out(X: np.ndarray, y: np.ndarray, lam: float, groups: np.ndarray, k: int = 3) -> np.ndarray:
    """Fit sklearn's Ridge without each group, and score its rows: the plain way."""
    scores = np.zeros((len(X), k))
    for group in np.unique(groups):
        inside = groups == group
        fitted = Ridge(alpha=lam).fit(X[~inside], targets(y[~inside], k).astype(float))
        scores[inside] = fitted.predict(X[inside])
        scores[np.ix_(inside, ~np.isin(np.arange(k), y[~inside]))] = -np.inf
    return scores


def apart(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference of scores, which are -inf for the same classes."""
    finite = np.isfinite(expected)
    assert np.array_equal(found[~finite], expected[~finite])
    return float(np.abs(found[finite] - expected[finite]).max())


@pytest.mark.parametrize(("n", "dims"), SHAPES)
@pytest.mark.parametrize("transform", ["std", "none"])
def test_leaving_one_out_equals_a_fit_without_each_row(n, dims, transform):
    X, y = problem(n, dims)
    found = loo_path(array_rows(X), targets(y, 3), transform, LAMS)
    Z = StandardScaler().fit_transform(X) if transform == "std" else X
    for number, lam in enumerate(LAMS):
        expected = left_out(Z, y, lam, np.arange(n))
        assert apart(found.scores(number), expected) < 1e-8
        assert np.array_equal(found.predicted[number], expected.argmax(axis=1))
    assert found.kind == "exact leave-one-out"
    assert found.predicted.dtype == np.int8


@pytest.mark.parametrize(("n", "dims"), SHAPES)
def test_leaving_groups_out_equals_a_fit_without_each_group(n, dims):
    X, y = problem(n, dims)
    groups = np.random.default_rng(1).integers(0, n // 2, n)
    found = loo_path(array_rows(X), targets(y, 3), "none", LAMS, np.unique(groups, return_inverse=True)[1])
    for number, lam in enumerate(LAMS):
        assert apart(found.scores(number), left_out(X, y, lam, groups)) < 1e-8
    assert found.kind == f"exact leave-group-out (at most {np.bincount(groups).max()} rows a group)"


@given(st.integers(3, 12), st.integers(1, 14), st.integers(0, 1000))
@settings(max_examples=40)
def test_any_rows_and_groups_are_left_out_exactly(n, dims, seed):
    rng = np.random.default_rng(seed)
    X, y = rng.integers(-2, 3, (n, dims)).astype(float), rng.integers(0, 3, n)
    groups = np.unique(rng.integers(0, n, n), return_inverse=True)[1]
    if groups.max() == 0:
        groups = np.arange(n)
    found = loo_path(array_rows(X), targets(y, 3), "none", np.array([0.5]), groups)
    assert apart(found.scores(0), left_out(X, y, 0.5, groups)) < 1e-8


def test_a_class_that_has_only_the_row_left_out_never_wins():
    X, y = problem(20, 4)
    y[y == 2] = 0
    y[7] = 2
    alone = loo_path(array_rows(X), targets(y, 4), "none", LAMS)
    assert not (alone.predicted[:, 7] == 2).any()
    assert not (alone.predicted == 3).any()
    assert (alone.scores(0)[7, 2], alone.scores(0)[7, 3]) == (-np.inf, -np.inf)
    together = loo_path(array_rows(X), targets(y, 4), "none", LAMS, np.arange(20) // 2)
    assert (together.scores(0)[6:8, 2] == -np.inf).all()


@pytest.mark.parametrize("n", [100, 400, 1600])
def test_the_scale_of_all_rows_moves_scores_by_little(n):
    X, y = problem(n, 5)
    scores, lam = loo_path(array_rows(X), targets(y, 3), "std", np.array([10.0])).scores(0), 10.0
    for row in range(0, n, n // 10):
        rest = np.delete(np.arange(n), row)
        scaler = StandardScaler().fit(X[rest])
        fitted = Ridge(alpha=lam).fit(scaler.transform(X[rest]), targets(y[rest], 3).astype(float))
        assert np.abs(fitted.predict(scaler.transform(X[row : row + 1])) - scores[row]).max() < 1 / n


def test_penalties_are_powers_of_two_of_the_variance():
    X, _ = problem(40, 6)
    X[:, 2] = 4.0
    grid = penalties(array_rows(X), "none")
    assert len(grid) == 31
    assert grid[10] == pytest.approx(X.var(axis=0).sum())
    assert np.allclose(grid[1:] / grid[:-1], 2)
    assert penalties(array_rows(X), "std")[10] == pytest.approx(5)
    assert penalties(array_rows(X[:4]), "pcaw")[10] == pytest.approx(3)


def test_features_that_say_nothing_leave_the_commonest_class():
    y = np.array([0, 1, 1, 1, 2, 1])
    found = loo_path(array_rows(np.full((6, 3), 7.0)), targets(y, 3), "std")
    assert (found.predicted == 1).all()


def test_pieces_make_the_whole(monkeypatch):
    X, y = problem(40, 6)
    groups = np.arange(40) // 3
    whole = [loo_path(array_rows(X), targets(y, 3), "std", groups=each) for each in (None, groups)]
    monkeypatch.setattr(path, "SCORE_BYTES", 8 * 3 * 5)
    monkeypatch.setattr(loo, "BATCH_BYTES", 8 * 6 * 7)
    parts = [loo_path(array_rows(X), targets(y, 3), "std", groups=each) for each in (None, groups)]
    for one, other in zip(whole, parts, strict=True):
        assert np.array_equal(one.predicted, other.predicted)
        assert np.allclose(one.scores(4), other.scores(4), rtol=1e-10)


def test_whitening_is_not_left_out_row_by_row():
    with pytest.raises(ValueError, match="leave out folds"):
        loo_path(array_rows(np.ones((3, 2))), targets(np.zeros(3, int), 2), "pcaw")
