"""Every road against scikit-learn's LogisticRegression behind a StandardScaler, mask by mask, in float64."""

from contextlib import contextmanager

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from classify.probe import precondition, softmax
from classify.probe.backend import torch_backend
from classify.probe.moments import Scalers, scalers
from classify.probe.objective import Asked
from classify.probe.rows import ArrayRows, array_rows
from classify.probe.softmax import Ends, fit_softmax
from classify.probe.solutions import Solutions
from extract.errors import FitError, OptionError

TIGHT = {"tol": 1e-9, "max_iter": 5000}


def features(n=150, dims=8, n_classes=3, seed=0):
    """Overlapping classes, features that go together, all positive: X (n, D) float32, y (n,)."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n - n_classes)])
    Z = rng.normal(size=(n_classes, dims))[y] * 0.7 + rng.normal(size=(n, dims))
    mixed = Z @ (np.eye(dims) + rng.normal(size=(dims, dims)) * 0.5)
    return np.maximum(mixed + 1, 0).astype(np.float32), y


def some_masks(n, shares=(0.8, 0.5, 0.3), seed=1):
    masks = np.random.default_rng(seed).random((len(shares), n)) < np.array(shares)[:, None]
    masks[:, :3] = True
    return masks


def fit(X, y, masks, problems, *, transform="std", n_classes=3, rows=None, **options) -> Solutions:
    """Fit with options of what is asked, of when it ends, and of the call."""
    rows = rows or array_rows(X)
    asked, ends = (
        {name: options.pop(name) for name in names & options.keys()}
        for names in ({"loss", "weights"}, {"tol", "gap", "max_iter"})
    )
    shared = Asked(rows, y, masks, scalers(rows, masks, transform), n_classes, **asked)
    return fit_softmax(shared, problems, Ends(**ends), **options)


def reference(X, y, mask, C, weights=None):
    model = make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=1e-11, max_iter=20_000))
    counts = None if weights is None else weights[mask]
    return model.fit(X[mask].astype(np.float64), y[mask], logisticregression__sample_weight=counts)[-1]


def assert_equal(found, p, expected, rel=1e-5):
    """Compare weights in units of the largest."""
    linear = found.linear(p)
    assert linear.coef == pytest.approx(expected.coef_, abs=rel * np.abs(expected.coef_).max())
    scale = max(1.0, np.abs(expected.intercept_).max())
    away = linear.intercept - expected.intercept_
    assert away - away.mean() == pytest.approx(0, abs=rel * scale)


def test_coefficients_are_those_of_sklearn_for_every_mask_and_c():
    X, y = features()
    masks = some_masks(len(y))
    problems = [(2, 100.0), (0, 1e-3), (1, 1.0), (0, 100.0), (2, 1e-3)]
    found = fit(X, y, masks, problems, **TIGHT)
    assert found.problems == tuple(problems)
    assert found.converged.all()
    assert (found.grad <= 1e-9).all()
    for p, (mask, C) in enumerate(problems):
        assert_equal(found, p, reference(X, y, masks[mask], C))


def test_the_objective_is_sklearns():
    X, y = features()
    masks = some_masks(len(y))
    found = fit(X, y, masks, [(1, 0.1)], **TIGHT)
    model = reference(X, y, masks[1], 0.1)
    Z = StandardScaler().fit_transform(X[masks[1]].astype(np.float64))
    losses = -model.predict_log_proba(Z)[np.arange(len(Z)), y[masks[1]]]
    assert found.objective[0] == pytest.approx(losses.sum() + (model.coef_**2).sum() / 0.2, rel=1e-8)


def test_two_classes_are_sklearns_one_column_halved():
    X, y = features(n_classes=2)
    masks = some_masks(len(y))
    found = fit(X, y, masks, [(0, 0.3), (1, 30.0)], n_classes=2, **TIGHT)
    for p, (mask, C) in enumerate(found.problems):
        expected, linear = reference(X, y, masks[mask], C), found.linear(p)
        assert linear.coef[0] == pytest.approx(-linear.coef[1])
        assert 2 * linear.coef[1] == pytest.approx(expected.coef_[0], rel=1e-5, abs=1e-7)
        assert linear.intercept[1] - linear.intercept[0] == pytest.approx(expected.intercept_[0], rel=1e-5)


def test_weights_count_rows_several_times():
    X, y = features()
    masks = some_masks(len(y))
    weights = np.random.default_rng(2).uniform(0.2, 3, len(y))
    assert_equal(fit(X, y, masks, [(1, 1.0)], weights=weights, **TIGHT), 0, reference(X, y, masks[1], 1.0, weights))


@pytest.mark.parametrize(("n", "dims"), [(150, 8), (40, 60), (400, 30)])
@pytest.mark.parametrize("full", [True, False])
def test_coordinates_choose_the_way_and_not_the_end(monkeypatch, n, dims, full):
    monkeypatch.setattr(precondition, "pays", lambda *_: full)
    X, y = features(n, dims)
    masks = some_masks(n)
    found = fit(X, y, masks, [(0, 1e-2), (1, 10.0)], **TIGHT)
    for p, (mask, C) in enumerate(found.problems):
        assert_equal(found, p, reference(X, y, masks[mask], C))


def test_a_full_factor_saves_passes():
    X, y = features(400, 30)
    rng = np.random.default_rng(3)
    Q, R = (np.linalg.qr(rng.normal(size=(30, 30)))[0] for _ in range(2))
    X = ((X - X.mean(axis=0)) @ Q * np.geomspace(1, 1e-3, 30) @ R).astype(np.float32)
    steps = []
    for full in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(precondition, "pays", lambda *_, full=full: full)
            steps.append(fit(X, y, some_masks(400), [(0, 0.1)], tol=1e-5).n_iter[0])
    assert steps[0] < 0.7 * steps[1]


def test_a_class_that_a_mask_lacks_gets_nothing_and_changes_nothing():
    X, y = features(n_classes=4)
    masks = some_masks(len(y))
    masks[0] &= y != 2
    masks[1] &= (y == 1) | (y == 3)
    found = fit(X, y, masks, [(0, 1.0), (1, 1.0), (2, 1.0)], n_classes=4, **TIGHT)
    assert found.live.tolist() == [[True, True, False, True], [False, True, False, True], [True] * 4]
    expected = reference(X, y, masks[0], 1.0)
    linear = found.linear(0)
    assert linear.coef[[0, 1, 3]] == pytest.approx(expected.coef_, rel=1e-4, abs=1e-6)
    assert not linear.coef[2].any()
    assert linear.intercept[2] == -np.inf
    two = found.linear(1)
    assert 2 * two.coef[3] == pytest.approx(reference(X, y, masks[1], 1.0).coef_[0], rel=1e-4, abs=1e-6)


def test_one_class_alone_is_done_at_once():
    X, y = features()
    found = fit(X, y, (y == 1)[None], [(0, 1.0)])
    assert found.converged[0]
    assert not found.coef.any()
    assert found.linear(0).scores(X.astype(np.float64)).argmax(axis=1).tolist() == [1] * len(y)


def test_sigmoid_fits_each_class_against_the_rest():
    X, y = features()
    masks, Y = some_masks(len(y)), (y[:, None] == np.arange(3)).astype(np.int8)
    Y[:, 1] |= Y[:, 0]
    found = fit(X, Y, masks, [(0, 0.1), (1, 10.0)], loss="sigmoid", **TIGHT)
    for p, (mask, C) in enumerate(found.problems):
        for column in range(3):
            expected, linear = reference(X, Y[:, column], masks[mask], C), found.linear(p)
            assert linear.coef[column] == pytest.approx(expected.coef_[0], rel=1e-4, abs=1e-6)
            assert linear.intercept[column] == pytest.approx(expected.intercept_[0], rel=1e-4, abs=1e-6)


def test_under_sigmoid_a_class_that_all_or_none_have_gets_a_bias_alone():
    X, y = features()
    masks, Y = some_masks(len(y)), (y[:, None] == np.arange(3)).astype(np.int8)
    Y[:, 0], Y[masks[0], 2] = 1, 0
    found = fit(X, Y, masks, [(0, 1e6), (1, 1.0)], loss="sigmoid", **TIGHT)
    N = masks[0].sum()
    assert not found.coef[0, [0, 2]].any()
    assert found.intercept[0, [0, 2]] == pytest.approx([np.log(2 * N + 1), -np.log(2 * N + 1)])
    expected = reference(X, Y[:, 1], masks[0], 1e6)
    assert found.coef[0, 1] == pytest.approx(expected.coef_[0], rel=1e-3)


def test_blocks_from_disk_give_the_same():
    X, y = features()
    masks = some_masks(len(y))
    whole = fit(X, y, masks, [(0, 1.0), (1, 0.01)], **TIGHT)
    pieces = fit(X, y, masks, [(0, 1.0), (1, 0.01)], rows=ArrayRows(X, block_bytes=7 * 8 * 4), **TIGHT)
    assert pieces.coef == pytest.approx(whole.coef, rel=1e-6, abs=1e-9)


def test_batches_that_fit_into_memory_give_the_same(monkeypatch):
    X, y = features()
    masks, problems = some_masks(len(y)), [(m, C) for C in (1.0, 0.01) for m in range(3)]
    whole = fit(X, y, masks, problems, **TIGHT)
    monkeypatch.setattr(softmax, "BATCH_BYTES", 2 * 27 * 8 * 32)
    assert fit(X, y, masks, problems, **TIGHT).coef == pytest.approx(whole.coef, rel=1e-6, abs=1e-9)


def test_the_scales_are_those_given_and_a_feature_without_one_is_dropped():
    X, y = features()
    X[:, 3] = 7.0
    masks = some_masks(len(y))
    found = fit(X, y, masks, [(0, 1.0)], **TIGHT)
    assert not found.coef[0, :, 3].any()
    rest = np.delete(np.arange(8), 3)
    assert found.coef[0][:, rest] == pytest.approx(reference(X[:, rest], y, masks[0], 1.0).coef_, rel=1e-4)
    plain = Scalers(np.zeros((3, 8)), np.ones((3, 8)))
    raw = fit_softmax(Asked(array_rows(X), y, masks, plain, 3), [(0, 0.1)], Ends(**TIGHT))
    model = LogisticRegression(C=0.1, tol=1e-11, max_iter=20_000).fit(X[masks[0]].astype(np.float64), y[masks[0]])
    assert raw.coef[0] == pytest.approx(model.coef_, rel=1e-4, abs=1e-6)


def test_features_far_from_0_end_in_float64():
    X, y = features()
    X += 1000
    masks = some_masks(len(y))
    found = fit(X, y, masks, [(0, 1.0)], tol=1e-7)
    assert found.converged[0]
    assert_equal(found, 0, reference(X, y, masks[0], 1.0), rel=1e-4)


def test_float64_is_for_what_float32_cannot_do():
    X, y = features()
    masks = some_masks(len(y))
    assert not fit(X, y, masks, [(0, 1.0), (1, 1e-3)], tol=1e-4).in_float64.any()
    assert fit(X, y, masks, [(0, 1.0), (1, 1e-3)], tol=1e-10, max_iter=5000).in_float64.all()


def test_what_did_not_converge_says_so():
    X, y = features()
    found = fit(X, y, some_masks(len(y)), [(0, 1e-6), (1, 1e4)], tol=1e-6, max_iter=2)
    assert found.converged.tolist() == [True, False]
    assert found.n_iter[1] == 2
    assert found.grad[1] > 1e-6


def test_a_start_that_is_near_saves_steps_and_ends_where_others_end():
    X, y = features(400, 30)
    masks = some_masks(400)
    before = fit(X, y, masks, [(0, 0.1), (1, 0.1), (0, 1e-5)], **TIGHT)
    cold = fit(X, y, masks, [(0, 0.12), (1, 0.12), (2, 0.12)], **TIGHT)
    warm = fit(X, y, masks, [(0, 0.12), (1, 0.12), (2, 0.12)], start=before, **TIGHT)
    assert warm.coef == pytest.approx(cold.coef, rel=1e-5, abs=1e-8)
    assert (warm.n_iter[:2] < cold.n_iter[:2]).all()
    again = fit(X, y, masks, [(0, 0.1)], start=before, tol=1e-8)
    assert again.n_iter[0] <= 1


def test_between_two_that_are_known_a_start_is_nearer_than_either():
    X, y = features(400, 30)
    masks = some_masks(400)
    known = [(0, C) for C in (0.01, 0.1, 1.0, 10.0)]
    before = fit(X, y, masks, known, **TIGHT)
    nearest = fit(X, y, masks, [(0, 1.0)], **TIGHT)
    steps = [fit(X, y, masks, [(0, 0.3)], start=start, tol=1e-6).n_iter[0] for start in (before, nearest)]
    assert steps[0] < 0.7 * steps[1]


@contextmanager
def torch_on_cpu(device):
    with torch_backend("cpu") as backend:
        yield backend


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("tol", [1e-5, 1e-9])
def test_torch_takes_the_same_road(monkeypatch, loss, tol):
    X, y = features()
    masks = some_masks(len(y))
    masks[0] &= y != 2
    target = y if loss == "softmax" else (y[:, None] == np.arange(3)).astype(np.int64)
    problems = [(0, 1.0), (1, 0.01), (2, 10.0)]
    numpy = fit(X, target, masks, problems, loss=loss, tol=tol)
    monkeypatch.setattr(softmax, "open_backend", torch_on_cpu)
    torch = fit(X, target, masks, problems, loss=loss, tol=tol, device="cuda")
    assert torch.converged.all()
    assert torch.coef == pytest.approx(numpy.coef, abs=300 * tol)
    assert (np.isneginf(torch.intercept) == np.isneginf(numpy.intercept)).all()


def test_what_cannot_be_fitted_is_refused():
    X, y = features()
    masks = some_masks(len(y))
    plain = Scalers(np.zeros((3, 8)), np.ones((3, 8)))
    with pytest.raises(FitError, match="no rows"):
        fit_softmax(Asked(array_rows(X), y, np.zeros_like(masks), plain, 3), [(0, 1.0)])
    with pytest.raises(OptionError, match="no loss 'hinge'"):
        fit(X, y, masks, [(0, 1.0)], loss="hinge")
    X[5, 2] = np.nan
    with pytest.raises(FitError, match="no number"):
        fit_softmax(Asked(array_rows(X), y, masks, plain, 3), [(0, 1.0)])


def test_progress_hears_of_every_problem():
    told = []

    class Watch:
        def start(self, what, total):
            told.append((what, total))

        def advance(self, steps, bad=0):
            told.append(steps)

        def note(self, text):
            raise AssertionError

    X, y = features()
    fit(X, y, some_masks(len(y)), [(0, 1.0), (1, 1.0)], progress=Watch(), tol=1e-9)
    assert told[0] == ("fitting", 2)
    assert sum(told[1:]) == 2


@pytest.mark.parametrize("transform", ["none", "std"])
def test_the_tolerance_means_the_same_whatever_the_length_of_the_rows(transform):
    X, y = features()
    masks = some_masks(len(y))
    found = fit(X, y, masks, [(0, 1.0)], transform=transform, tol=1e-4)
    # The same problem in other units: weights grow as rows shrink, and C with their square.
    small = fit(X / 1024, y, masks, [(0, 1.0 * 1024**2 if transform == "none" else 1.0)], transform=transform, tol=1e-4)
    assert small.n_iter == found.n_iter
    assert small.linear(0).scores(X / 1024) == pytest.approx(found.linear(0).scores(X), abs=1e-4)


def test_weak_penalties_are_held_to_smaller_gradients_by_the_gap_that_is_left():
    X, y = features()
    masks = some_masks(len(y))
    problems = [(0, C) for C in (1e-2, 1.0, 100.0)]
    loose, held = (fit(X, y, masks, problems, tol=1e-3, gap=gap) for gap in (None, 1e-8))
    best = fit(X, y, masks, problems, **TIGHT)
    n = masks[0].sum()
    assert (held.objective - best.objective <= 1e-7 * n).all()
    assert (loose.objective - best.objective)[2] > 1e-6 * n
    assert held.converged.all()
    assert Ends(1e-4, 1e-8).tolerances(np.array([1.0, 1e-4, 1e-12])).tolist() == [
        1e-4,
        pytest.approx(2**0.5 * 1e-6),
        2e-7,
    ]
