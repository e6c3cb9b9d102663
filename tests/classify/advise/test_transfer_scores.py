import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, ortho_group
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import KNeighborsClassifier

from classify.advise.scores import h_score, logme, neighbours_say
from classify.scoring import COSINE_TEMPERATURE
from extract.errors import FitError
from tests.classify.tiny_features import blobs, noise

SHAPES = [(40, 5), (30, 12), (12, 30), (20, 20)]


def problem(n: int, dims: int, distance: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng, y = np.random.default_rng(seed), np.arange(n) % 3
    return rng.normal(size=(3, dims))[y] * distance + rng.normal(size=(n, dims)) + 0.5, y


def best_evidence(X: np.ndarray, target: np.ndarray) -> float:
    """The log evidence per row, maximised over both precisions from several starts: the marginal as it is written."""

    def lost(logs: np.ndarray) -> float:
        alpha, beta = np.exp(logs)
        covariance = np.eye(len(X)) / beta + X @ X.T / alpha
        return -multivariate_normal.logpdf(target, np.zeros(len(X)), covariance, allow_singular=False)

    bounds, options = [(-12, 12)] * 2, {"xatol": 1e-4, "fatol": 1e-8}
    starts = [(-3, 2), (2, 2), (7, 2)]
    found = (minimize(lost, start, method="Nelder-Mead", bounds=bounds, options=options) for start in starts)
    return -min(each.fun for each in found) / len(X)


@pytest.mark.parametrize(("n", "dims"), SHAPES)
def test_logme_is_the_highest_evidence_there_is(n, dims):
    X, y = problem(n, dims)
    expected = np.mean([best_evidence(X, (y == code).astype(float)) for code in range(3)])
    assert logme(X, y) == pytest.approx(expected, abs=1e-5)


def published_logme(X: np.ndarray, y: np.ndarray) -> float:
    """The fixed point of You et al. 2021, algorithm 1, class by class, run until it stands."""
    n, dims = X.shape
    U, s, _ = np.linalg.svd(X, full_matrices=False)
    found = []
    for code in np.unique(y):
        target = (y == code).astype(float)
        x2, s2 = (U.T @ target) ** 2, s**2
        alpha = beta = 1.0
        for _ in range(2000):
            t = alpha / beta
            gamma = (s2 / (s2 + t)).sum()
            m2 = (s2 * x2 / (t + s2) ** 2).sum()
            res2 = (x2 / (1 + s2 / t) ** 2).sum() + target.sum() - x2.sum()
            alpha, beta = gamma / m2, (n - gamma) / res2
        logs = dims * np.log(alpha) + n * np.log(beta) - np.log(alpha + beta * s2).sum() - n * np.log(2 * np.pi)
        found.append((logs - beta * res2 - alpha * m2) / 2 / n)
    return float(np.mean(found))


def test_logme_is_the_published_fixed_point():
    X, y = problem(90, 7)
    assert logme(X, y) == pytest.approx(published_logme(X, y), abs=1e-6)


@given(st.sampled_from(SHAPES), st.integers(0, 1000), st.floats(1e-6, 1e6))
def test_scores_do_not_depend_on_the_size_of_features_or_their_axes(shape, seed, size):
    X, y = problem(*shape, seed=seed)
    turned = size * X @ ortho_group.rvs(shape[1], random_state=seed)
    assert logme(turned, y) == pytest.approx(logme(X, y), abs=1e-6)
    assert h_score(turned, y) == pytest.approx(h_score(X, y), rel=1e-6)


@given(st.sampled_from(SHAPES), st.integers(0, 1000))
def test_scores_do_not_depend_on_the_order_of_images_or_the_codes_of_classes(shape, seed):
    X, y = problem(*shape, seed=seed)
    order = np.random.default_rng(seed).permutation(len(y))
    for score in (logme, h_score):
        assert score(X[order], np.array([7, 2, 30])[y[order]]) == pytest.approx(score(X, y), rel=1e-7)


def test_scores_are_higher_where_the_classes_are_apart():
    y = np.arange(200) % 4
    apart, close = blobs(y, 16), blobs(y, 16, distance=0.3)
    for score in (logme, h_score):
        assert score(apart, y) > score(close, y) > score(noise(200, 16), y)


def test_float32_features_far_from_zero_lose_nothing():
    """Eigenvalues of float32 products would drown all but the mean."""
    X, y = problem(80, 6, distance=2.0)
    far = (X + 1000).astype(np.float32)
    assert h_score(far, y) == pytest.approx(h_score(far.astype(np.float64) - 1000, y), rel=1e-6)
    with_mean = np.column_stack([far.astype(np.float64) - 1000, np.full(80, 1000.0)])
    assert logme(far, y) > logme(noise(80, 6), y)
    assert logme(with_mean, y) > logme(with_mean[:, -1:], y)


@pytest.mark.parametrize(("n", "dims"), SHAPES)
def test_the_h_score_is_that_of_the_shrunk_covariance(n, dims):
    X, y = problem(n, dims, distance=2.0)
    found = LedoitWolf().fit(X)
    means = np.stack([X[y == code].mean(axis=0) for code in y]) - X.mean(axis=0)
    expected = (1 - found.shrinkage_) * np.trace(np.linalg.inv(found.covariance_) @ (means.T @ means / n))
    assert 0 < found.shrinkage_ < 1
    assert h_score(X, y) == pytest.approx(expected, rel=1e-9)


def test_the_h_score_of_one_feature_has_nothing_to_shrink():
    y = np.array([0, 0, 1, 1])
    X = np.array([[0.0], [1.0], [4.0], [5.0]])
    assert h_score(X, y) == pytest.approx(4.0 / 4.25)  # between over all: 2^2 / (2^2 + 0.5^2)


def test_features_that_say_nothing_have_no_score():
    y = np.arange(6) % 2
    with pytest.raises(FitError, match="same features"):
        logme(np.zeros((6, 4)), y)
    with pytest.raises(FitError, match="same features"):
        h_score(np.full((6, 4), 0.5), y)


def plainly(X: np.ndarray, y: np.ndarray, groups: np.ndarray, k: int) -> list[int]:
    """Neighbour by neighbour, one image after the other."""
    unit, said = X / np.linalg.norm(X, axis=1, keepdims=True), []
    for at in range(len(y)):
        others = [other for other in range(len(y)) if groups[other] != groups[at]]
        near = sorted(others, key=lambda other: -unit[at] @ unit[other])[:k]
        votes = np.zeros(int(y.max()) + 1)
        for other in near:
            votes[y[other]] += np.exp(unit[at] @ unit[other] / COSINE_TEMPERATURE)
        said.append(int(votes.argmax()))
    return said


@pytest.mark.parametrize("n_groups", [90, 30, 4])
def test_neighbours_vote_as_a_plain_loop_has_it(n_groups):
    X, y = problem(90, 8, distance=0.8)
    groups = np.random.default_rng(1).permutation(90) % n_groups
    said, k = neighbours_say(X, y, groups, 7)
    assert k == 7
    assert said.tolist() == plainly(X, y, groups, 7)
    assert 0 < (said == y).mean() < 1


def test_neighbours_without_groups_are_those_of_sklearn(monkeypatch):
    monkeypatch.setattr("classify.advise.scores.BLOCK_ROWS", 32)
    X, y = problem(100, 8, distance=0.8)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    expected = [
        KNeighborsClassifier(5, metric="cosine", weights=lambda far: np.exp(-far / COSINE_TEMPERATURE))
        .fit(np.delete(unit, at, axis=0), np.delete(y, at))
        .predict(unit[at : at + 1])[0]
        for at in range(100)
    ]
    assert neighbours_say(X, y, None, 5)[0].tolist() == expected


def test_twins_do_not_vote_for_each_other():
    """Every image twice, its label drawn: only its twin would know it."""
    y = np.repeat(np.random.default_rng(0).integers(0, 2, 100), 2)
    X = np.repeat(noise(100, 6), 2, axis=0)
    alone, _ = neighbours_say(X, y, None, 1)
    apart, _ = neighbours_say(X, y, np.repeat(np.arange(100), 2), 1)
    assert (alone == y).all()
    assert 0.3 < (apart == y).mean() < 0.7


def test_k_is_cut_to_what_the_largest_group_leaves():
    X, y = problem(12, 4)
    groups = np.array([0] * 7 + [1] * 5)
    assert neighbours_say(X, y, groups, 20)[1] == 5
    assert neighbours_say(X, y, None, 20)[1] == 11
    with pytest.raises(FitError, match="one group"):
        neighbours_say(X, y, np.zeros(12, int), 20)


def test_features_are_left_as_they_are():
    X, y = problem(30, 4)
    X = X.astype(np.float32)
    before = X.copy()
    for score in (logme, h_score, lambda X, y: neighbours_say(X, y, None, 3)):
        score(X, y)
    assert np.array_equal(X, before)
