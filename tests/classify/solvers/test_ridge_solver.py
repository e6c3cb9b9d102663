import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from tiny_features import blobs
from tiny_task import candidate, tiny_task

from classify.probe.transforms import make_steps
from classify.scoring import ROWWISE, SCORERS
from classify.solvers import out_of_fold
from classify.solvers.ridge import SCALE, Ridge
from extract.progress import Silent


@pytest.mark.parametrize("transform", ["std", "pow"])
def test_every_penalty_is_judged_as_sklearn_would_fold_by_fold(transform):
    y = np.arange(60) % 3
    X = blobs(y, 7, distance=0.4)
    task = tiny_task(y, {"tap": X})
    trials = Ridge().refine(task, candidate(X, transform), Silent())
    for trial in trials[::6]:
        for train, test in task.folds:
            steps = make_steps(transform, len(train), X.shape[1])
            model = make_pipeline(*steps, RidgeClassifier(alpha=trial.params["alpha"])).fit(X[train], y[train])
            assert (trial.predicted[test] == model.predict(X[test])).all()
    again = out_of_fold(task, candidate(X, transform), trials[3].params, Ridge())
    assert (again.argmax(axis=1) == trials[3].predicted).all()


def test_the_last_fit_is_a_formula_on_the_rows_themselves():
    y = np.arange(40) % 3
    X = blobs(y, 8, distance=0.5)
    task = tiny_task(y, {"tap": X})
    fitted = Ridge().fit(task, candidate(X), {"alpha": 2.0})
    steps = make_steps("std", 40, 8)
    model = make_pipeline(*steps, RidgeClassifier(alpha=2.0)).fit(X.astype(np.float64), y)
    scores = SCORERS["linear"](fitted.arrays, ROWWISE["std"](X.astype(np.float64)))
    assert scores / SCALE == pytest.approx(model.decision_function(X.astype(np.float64)), abs=1e-5)
