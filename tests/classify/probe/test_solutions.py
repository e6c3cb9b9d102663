from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from classify.probe import passes, solutions
from classify.probe.backend import torch_backend
from classify.probe.moments import scalers
from classify.probe.objective import Asked
from classify.probe.rows import ArrayRows, array_rows
from classify.probe.softmax import Ends, fit_softmax
from classify.probe.solutions import out_of_fold_codes, predict_masked
from classify.scoring import ABSENT

N, DIMS, K = 90, 6, 3


@pytest.fixture(scope="module")
def solved():
    """Three folds and two C; the first fold's training rows lack class 2."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, K, N)
    X = (rng.normal(size=(K, DIMS))[y] + rng.normal(size=(N, DIMS))).astype(np.float32)
    masks = np.arange(N) % 3 != np.arange(3)[:, None]
    masks[0] &= y != 2
    problems = [(m, C) for C in (0.01, 1.0) for m in range(3)]
    asked = Asked(array_rows(X), y, masks, scalers(array_rows(X), masks, "std"), K)
    return X, fit_softmax(asked, problems, Ends(1e-6))


def out_of_fold(rows, solved, C, outside=None, device="cpu"):
    """Scores of each row by the problem of this C that was not fitted on it: (n, K), NaN where there is none."""
    scores = np.full((N, K), np.nan)
    for p, at, found in predict_masked(rows, solved, outside, device):
        if solved.problems[p][1] == C:
            scores[at] = found
    return scores


def plain(X, solved, p):
    scores = solved.linear(p).scores(X.astype(np.float64))
    absent = np.isneginf(solved.intercept[p])
    scores[:, absent] = scores[:, ~absent].min(axis=1, keepdims=True) - ABSENT
    return scores


def test_scores_of_rows_outside_a_mask_are_those_of_its_heads(solved):
    X, fitted = solved
    seen = {p: [] for p in range(6)}
    for p, at, scores in predict_masked(ArrayRows(X, block_bytes=25 * DIMS * 4), fitted):
        assert scores == pytest.approx(plain(X, fitted, p)[at], rel=1e-4, abs=1e-5)
        seen[p] += at.tolist()
    for p, (mask, _) in enumerate(fitted.problems):
        assert seen[p] == np.flatnonzero(~fitted.masks[mask]).tolist()


def test_out_of_fold_each_row_is_scored_by_the_fold_that_left_it_out(solved):
    X, fitted = solved
    folds = np.arange(N) % 3 == np.arange(3)[:, None]
    scores = out_of_fold(array_rows(X), fitted, 1.0, outside=folds)
    for p in (3, 4, 5):
        rows = np.arange(N) % 3 == p - 3
        assert scores[rows] == pytest.approx(plain(X, fitted, p)[rows], rel=1e-4, abs=1e-5)
    codes = out_of_fold_codes(array_rows(X), fitted, outside=folds)
    assert codes.keys() == {0.01, 1.0}
    assert np.array_equal(codes[1.0], scores.argmax(axis=1))


def test_a_row_that_nobody_left_out_has_no_score(solved):
    X, fitted = solved
    outside = np.zeros_like(fitted.masks)
    outside[1, 4] = True
    scores = out_of_fold(array_rows(X), fitted, 0.01, outside=outside)
    assert np.flatnonzero(~np.isnan(scores).any(axis=1)).tolist() == [4]
    codes = out_of_fold_codes(array_rows(X), fitted, outside=outside)[0.01]
    assert (np.delete(codes, 4) == -1).all()
    assert codes[4] == scores[4].argmax()


def test_no_chunk_holds_more_scores_than_it_may(solved, monkeypatch):
    X, fitted = solved
    monkeypatch.setattr(passes, "MIN_CHUNK_ROWS", 5)
    monkeypatch.setattr("classify.probe.backend.CPU_CHUNK", 5 * 6 * K)
    parts = list(predict_masked(array_rows(X), fitted))
    assert max(len(at) for _, at, _ in parts) <= 5
    assert sum(len(at) for _, at, _ in parts) == sum((~fitted.masks[m]).sum() for m, _ in fitted.problems)


@pytest.mark.parametrize(("C", "near"), [(0.1, 4), (0.003, 3), (100.0, 3), (0.01, 3), (1e-4, 1), (1e5, 1)])
def test_what_lies_between_is_estimated_by_a_polynomial_of_the_nearest_and_what_lies_beyond_is_the_nearest(
    solved, C, near
):
    _, fitted = solved
    known = [0.001, 0.01, 1.0, 10.0, 1e3]
    problems = tuple((mask, each) for each in known for mask in (0, 1))
    numbers, share = replace(fitted, problems=problems).between(1, C)
    assert {problems[p][0] for p in numbers} == {1}
    assert len(numbers) == near
    assert share.sum() == pytest.approx(1)
    x = np.log([problems[p][1] for p in numbers])
    for power in range(near) if near > 1 else ():
        assert share @ x**power == pytest.approx(np.log(C) ** power)
    if near == 1:
        assert problems[numbers[0]][1] in (known[0], known[-1])


def test_a_mask_that_nothing_is_known_of_is_not_guessed_at(solved):
    assert solved[1].between(7, 1.0)[0] == []


def test_solutions_are_joined_with_all_that_belongs_to_a_problem(solved):
    _, fitted = solved
    other = replace(fitted, problems=tuple((mask, C * 3) for mask, C in fitted.problems), coef=fitted.coef + 1)
    both = other.joined(fitted)
    assert both.problems == other.problems + fitted.problems
    assert np.array_equal(both.linear(1).coef, other.linear(1).coef)
    assert np.array_equal(both.linear(7).coef, fitted.linear(1).coef)
    assert all(len(getattr(both, name)) == 12 for name in solutions.BY_PROBLEM)
    assert fitted.joined(None) is fitted


def test_torch_scores_alike(solved, monkeypatch):
    @contextmanager
    def torch_on_cpu(device):
        with torch_backend("cpu") as backend:
            yield backend

    X, fitted = solved
    numpy = out_of_fold(array_rows(X), fitted, 1.0)
    monkeypatch.setattr(solutions, "open_backend", torch_on_cpu)
    assert out_of_fold(array_rows(X), fitted, 1.0, device="cuda") == pytest.approx(
        numpy, rel=1e-4, abs=1e-5, nan_ok=True
    )
