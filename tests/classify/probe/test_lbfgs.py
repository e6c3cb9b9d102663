import numpy as np
import pytest

from classify.probe.backend import numpy_backend
from classify.probe.lbfgs import Limits, minimise
from extract.errors import FitError


def quadratics(dims=30, conditions=(1.0, 10.0, 1e3)):
    """Return matrices of these condition numbers, and the minima of 1/2 (x - m)' A (x - m)."""
    rng = np.random.default_rng(0)
    matrices, minima = [], rng.normal(size=(len(conditions), dims))
    for condition in conditions:
        Q = np.linalg.qr(rng.normal(size=(dims, dims)))[0]
        matrices.append(Q * np.geomspace(1, condition, dims) @ Q.T)
    return np.array(matrices), minima


def evaluator(matrices, minima, seen):
    def evaluate(x, which):
        seen.append(which)
        away = x - minima[which]
        gradient = np.einsum("pij,pj->pi", matrices[which], away)
        return (away * gradient).sum(axis=1) / 2, gradient, np.abs(gradient).max(axis=1)

    return evaluate


def run(evaluate, start, **limits):
    with numpy_backend() as backend:
        return minimise(evaluate, start, Limits(**{"tol": 1e-9, "max_iter": 500, **limits}), backend)


def test_minima_of_quadratics_are_found_and_each_problem_leaves_when_it_is_done():
    matrices, minima = quadratics()
    seen = []
    found = run(evaluator(matrices, minima, seen), np.zeros_like(minima))
    assert found.size.max() <= 1e-9
    assert found.point == pytest.approx(minima, abs=1e-8)
    assert found.value == pytest.approx(0, abs=1e-12)
    assert (np.diff(found.n_iter) > 0).all()
    assert [len(which) for which in seen] == sorted((len(which) for which in seen), reverse=True)
    assert len(seen[-1]) == 1


def test_company_changes_nothing_for_a_problem():
    matrices, minima = quadratics()
    together = run(evaluator(matrices, minima, []), np.zeros_like(minima))
    for at in range(len(minima)):
        alone = run(evaluator(matrices[[at]], minima[[at]], []), np.zeros((1, minima.shape[1])))
        assert alone.n_iter[0] == together.n_iter[at]
        assert alone.point[0] == pytest.approx(together.point[at], abs=1e-10)


def test_a_bad_first_step_is_shortened():
    matrices, minima = quadratics(dims=6, conditions=(1e6,))
    found = run(evaluator(matrices, minima, []), np.zeros_like(minima), tol=1e-3)
    assert found.size[0] <= 1e-3


def test_the_limit_of_steps_holds_and_what_is_not_reached_shows():
    matrices, minima = quadratics(conditions=(1e3,))
    found = run(evaluator(matrices, minima, []), np.zeros_like(minima), max_iter=3)
    assert found.n_iter[0] == 3
    assert found.size[0] > 1e-9


def test_a_tolerance_below_rounding_ends_in_a_stall():
    matrices, minima = quadratics(conditions=(1e3,))
    found = run(evaluator(matrices, minima, []), np.zeros_like(minima), tol=0.0, max_iter=10_000)
    assert found.n_iter[0] < 1000
    assert found.point == pytest.approx(minima, abs=1e-7)


def test_a_start_without_a_value_is_refused():
    with pytest.raises(FitError, match="no number"):
        run(lambda x, which: (np.full(1, np.nan), x, np.ones(1)), np.zeros((1, 2)))
