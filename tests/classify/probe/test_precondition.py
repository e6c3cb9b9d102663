import numpy as np
import pytest

from classify.probe import precondition
from classify.probe.backend import numpy_backend
from classify.probe.moments import scalers
from classify.probe.precondition import FLOOR, Factors, pays
from classify.probe.rows import array_rows

N, DIMS = 300, 12
RIDGES = np.array([1e-9, 1e-3, 20.0, 500.0])


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return array_rows((rng.normal(size=(N, DIMS)) @ rng.normal(size=(DIMS, DIMS)) + 5).astype(np.float32))


@pytest.fixture
def cores():
    with numpy_backend() as backend:
        yield backend


def coordinates(rows, cores, monkeypatch, full):
    monkeypatch.setattr(precondition, "pays", lambda *_: full)
    found = factors_of(rows).coordinates(RIDGES, 40, cores)
    return found, found.on(cores, "float64")


def factors_of(rows):
    return Factors(rows, scalers(rows, np.ones((1, N), bool), "std"), 0.1)


def test_a_full_factor_flattens_the_curvature_it_was_made_for(rows, cores, monkeypatch):
    monkeypatch.setattr(precondition, "ROWS_PER_DIM", N)
    found, _ = coordinates(rows, cores, monkeypatch, full=True)
    Z = (rows.X - rows.X.mean(axis=0)) / rows.X.std(axis=0)
    for ridge, at in zip(RIDGES, found.factor_of, strict=True):
        A = found.factors[at].astype(np.float64)
        H = A @ (0.1 * Z.T @ Z / N + max(ridge, 0.1 * FLOOR) * np.eye(DIMS)) @ A.T
        assert np.linalg.eigvalsh(H) == pytest.approx(1, abs=0.2)


def test_problems_below_the_floor_share_a_factor(rows, cores, monkeypatch):
    found, _ = coordinates(rows, cores, monkeypatch, full=True)
    assert found.factor_of.tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize("columns", [5, 256])
@pytest.mark.parametrize("full", [True, False])
def test_coordinates_lead_back_to_weights_and_gradients_are_their_adjoint(rows, cores, monkeypatch, full, columns):
    monkeypatch.setattr(precondition, "COLUMNS", columns)
    found, applied = coordinates(rows, cores, monkeypatch, full)
    rng = np.random.default_rng(1)
    W, G = rng.normal(size=(2, 3, 5, DIMS))
    which = np.array([0, 1, 3])
    U = found.of_weights(W, which)
    assert applied.weights(U, which) == pytest.approx(W, rel=1e-6, abs=1e-9)
    assert np.sum(applied.gradient(G, which) * U) == pytest.approx(np.sum(G * W), rel=1e-6)


def test_what_a_call_made_the_next_one_finds(rows, cores, monkeypatch):
    monkeypatch.setattr(precondition, "pays", lambda *_: True)
    asked = factors_of(rows)
    first = asked.coordinates(RIDGES, 40, cores)
    monkeypatch.setattr(Factors, "_sample", None)
    again = asked.coordinates(RIDGES[1:3], 40, cores)
    assert again.factors[0] is first.factors[0]
    assert again.factors[1] is first.factors[1]
    other = asked.coordinates(np.array([100.0]), 40, cores).factors[0]
    inverse = np.linalg.inv(np.linalg.cholesky(asked.moments + 2.0 ** (13 / 2) * np.eye(DIMS)))
    assert other == pytest.approx(inverse, abs=1e-5)


def test_a_full_factor_is_for_many_columns_and_for_many_rows():
    assert pays((5_000, 512), 5, 500)
    assert pays((50_000, 2_048), 1, 10)
    assert pays((4_000, 3_584), 3, 200)
    assert pays((4_000, 2_048), 1, 50)
    assert not pays((5_000, 2_048), 1, 10)
    assert not pays((1_000, 2_048), 5, 500)
