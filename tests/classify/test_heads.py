import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from tiny_features import blobs

from classify.calibrate import fit_temperature, softmax
from classify.heads import HEADS, converged, pad
from classify.scoring import ROWWISE, SCORERS
from extract.errors import OptionError


def fitted(name: str, n_classes: int = 3, **asked):
    y = np.arange(90) % n_classes
    X = blobs(y, 12, distance=0.7).astype(np.float64)
    head = HEADS[name]
    pipeline = head.build(head.values(90)[0], 0, **asked).fit(X, y)
    assert converged(pipeline)
    return head, pipeline, X


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", HEADS)
def test_scores_and_arrays_agree_with_what_sklearn_predicts(name, n_classes):
    head, pipeline, X = fitted(name, n_classes)
    scores = head.scores(pipeline, X)
    assert scores.shape == (90, n_classes)
    assert (scores.argmax(axis=1) == pipeline.predict(X)).all()
    assert SCORERS[head.kind](head.arrays(pipeline), X) == pytest.approx(scores, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "transform"), [(name, each) for name, head in HEADS.items() for each in head.transforms]
)
def test_arrays_score_rows_after_the_map_of_each(name, transform):
    head, pipeline, X = fitted(name, transform=transform)
    X[:, 4] = 1.0  # a feature that never changes
    pipeline.fit(X, np.arange(90) % 3)
    arrays = head.arrays(pipeline)
    assert all(np.isfinite(array).all() for array in arrays.values())
    scores = SCORERS[head.kind](arrays, ROWWISE[transform](X))
    assert scores == pytest.approx(head.scores(pipeline, X), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", [name for name, head in HEADS.items() if head.weighs])
def test_balanced_classes_find_more_of_the_rare_one(name):
    y = (np.arange(200) % 20 == 0).astype(int)
    X = blobs(y, 4, distance=0.3).astype(np.float64)
    head = HEADS[name]
    found = [head.build(head.grid[1], 0, class_weight=each).fit(X, y).predict(X).sum() for each in (None, "balanced")]
    assert found[0] < found[1]


def test_what_a_head_cannot_do_is_told():
    with pytest.raises(OptionError, match="lda cannot weigh classes"):
        HEADS["lda"].build("auto", 0, class_weight="balanced")
    with pytest.raises(OptionError, match="no class weights 'equal'"):
        HEADS["logistic"].build(1.0, 0, class_weight="equal")
    with pytest.raises(OptionError, match=r"knn takes no rows in 'std'.*l2, pow"):
        HEADS["knn"].build(5, 0, transform="std")
    with pytest.raises(OptionError, match="ridge takes no rows in 'whiten'"):
        HEADS["ridge"].build(5, 0, transform="whiten")


@pytest.mark.parametrize("name", HEADS)
def test_the_same_seed_gives_the_same_scores(name):
    (head, one, X), (_, two, _) = fitted(name), fitted(name)
    assert (head.scores(one, X) == head.scores(two, X)).all()


def test_two_logistic_scores_give_sklearns_probability():
    head, pipeline, X = fitted("logistic", 2)
    assert softmax(head.scores(pipeline, X)) == pytest.approx(pipeline.predict_proba(X))


def test_neighbours_vote_as_in_dinov2():
    head, pipeline, X = fitted("knn")
    Z = X / np.linalg.norm(X, axis=1, keepdims=True)
    cosines = Z @ Z.T
    for row in range(5):
        nearest = np.argsort(-cosines[row])[:10]
        weights = softmax(cosines[row, nearest][None] / 0.07)[0]
        votes = np.bincount(nearest % 3, weights=weights, minlength=3)
        assert softmax(head.scores(pipeline, X[row : row + 1]))[0] == pytest.approx(votes, abs=1e-5)


def test_absent_classes_lose_and_the_others_keep_their_column():
    padded = pad(np.array([[1.0, 3.0]]), np.array([0, 3]), 4)
    assert padded.tolist() == [[1.0, -9.0, -9.0, 3.0]]


def test_the_grid_grows_at_its_edges_up_to_the_limit():
    head = HEADS["logistic"]
    grid = list(head.grid)
    assert head.extend(grid, 1e-4) == [pytest.approx(1e-5)]
    assert head.extend(grid, 1e-1) == [pytest.approx(1.0)]
    assert head.extend(grid, 1e-2) == []
    assert head.extend([*grid, 1e3], 1e3) == []
    assert head.at_limit([*grid, 1e3], 1e3)
    assert not head.at_limit(grid, 1e-1)
    assert not HEADS["knn"].at_limit([5, 10], 10)


def test_neighbours_are_fewer_than_the_rows():
    assert HEADS["knn"].values(30) == [10, 20, 29]
    assert HEADS["knn"].values(8) == [7]
    assert HEADS["knn"].values(2) == [1]


@pytest.mark.parametrize("name", ["logistic", "linear-svm", "sgd"])
def test_a_solver_that_runs_out_of_iterations_says_so(name):
    y = np.arange(60) % 3
    pipeline = HEADS[name].build(1e-3 if name == "sgd" else 100.0, 0)
    pipeline[-1].set_params(max_iter=2)
    with pytest.warns(ConvergenceWarning):
        pipeline.fit(blobs(y, 5, distance=0.5), y)
    assert not converged(pipeline)


@pytest.mark.parametrize("name", HEADS)
def test_scores_are_about_as_wide_as_logits(name):
    rng = np.random.default_rng(0)
    true = np.arange(300) % 3
    X = blobs(true, 64, distance=0.3).astype(np.float64)
    y = np.where(rng.random(300) < 0.2, rng.integers(0, 3, 300), true)
    head = HEADS[name]
    pipeline = head.build(head.values(150)[-1], 0).fit(X[::2], y[::2])
    assert 0.1 < fit_temperature(head.scores(pipeline, X[1::2]), y[1::2]) < 10
