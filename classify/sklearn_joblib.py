"""The head of a run as a scikit-learn pipeline in a joblib file, for code of the user's own; only where asked for.

A joblib file is a pickle: whoever wrote it can have anything run when it is loaded, and another scikit-learn may read
it otherwise. Bundles hold none, nothing here reads one unasked, and who asks has to say that they trust the file.
"""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from classify.deployed import Bundle
from classify.folders import whole_file
from classify.scoring import signed_root_unit
from extract.errors import BundleError, FitError, first_line

NAME = "head.joblib"
"""What it is called in the folder of a run."""
WARNING = (
    "{path} is a pickle, and only as safe as who gives it to you: nothing of ours loads one without --trust, "
    "and another scikit-learn may read it otherwise. The bundle beside it is neither"
)
BROKEN = (OSError, EOFError, pickle.UnpicklingError, AttributeError, ImportError, LookupError, ValueError, TypeError)


def write_joblib(bundle: Bundle, path: Path) -> None:
    """Write the head as one pipeline: joined rows (n, D) in, names of classes and calibrated probabilities out.

    Raises FitError where the head is not linear, or images have several labels.
    """
    import joblib

    pipeline = pipeline_of(bundle)
    with whole_file(path, FitError) as temporary:
        joblib.dump(pipeline, temporary)


def pipeline_of(bundle: Bundle) -> Any:
    """Make a scikit-learn pipeline that gives the bundle's probabilities: (n, D) of one layer, or `joined`."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, Normalizer

    if bundle.kind != "linear" or bundle.task != "single":
        said = f"a {bundle.head} head of the task {bundle.task!r} is no pipeline of scikit-learn alone"
        raise FitError(said, remedy="Take predict, export or serve, which know all heads; the run itself is whole")
    rowwise = {"l2": [Normalizer()], "pow": [FunctionTransformer(signed_root_unit)]}.get(bundle.transform, [])
    return make_pipeline(*rowwise, _scaler(bundle), _logistic(bundle))


def _scaler(bundle: Bundle) -> Any:
    from sklearn.preprocessing import StandardScaler

    scaler: Any = StandardScaler()
    scaler.mean_, scaler.scale_ = bundle.arrays["mean"], bundle.arrays["scale"]
    scaler.var_, scaler.n_features_in_, scaler.n_samples_seen_ = scaler.scale_**2, len(scaler.mean_), 1
    return scaler


def _logistic(bundle: Bundle) -> Any:
    """Write scores over the temperature as a logistic regression; of two classes it has the difference alone."""
    from sklearn.linear_model import LogisticRegression

    coef, intercept = (bundle.arrays[name] / bundle.temperature for name in ("coef", "intercept"))
    if len(bundle.classes) == 2:
        coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
    model: Any = LogisticRegression()
    model.coef_, model.intercept_, model.n_features_in_ = coef, intercept, coef.shape[1]
    model.classes_, model.n_iter_ = np.array(bundle.classes), np.zeros(1, np.int32)
    return model


def load_joblib(path: Path, *, trust: bool = False) -> Any:
    """Load a classifier from a joblib file, whatever else that runs; raises BundleError unless it is to be trusted."""
    if not trust:
        said = "a joblib file can run anything when it is loaded"
        raise BundleError(said, where=str(path), remedy="Take the run's bundle; --trust if you know who wrote the file")
    import joblib

    try:
        model = joblib.load(path)
    except BROKEN as error:
        said = first_line(error)
        raise BundleError(f"no classifier can be loaded: {said}", where=str(path), remedy="Write it again") from error
    if not (hasattr(model, "classes_") and (hasattr(model, "predict_proba") or hasattr(model, "decision_function"))):
        raise BundleError("no classifier of scikit-learn's kind", where=str(path), remedy="Name another file")
    return model


def with_head(bundle: Bundle, model: Any, where: str) -> Bundle:
    """Give a bundle another head, of the same classes and columns; its thresholds were the other one's, and go."""
    if [str(name) for name in model.classes_] != bundle.classes:
        remedy = "Name the file that was written of this run"
        raise BundleError("it answers with other classes than the run", where=where, remedy=remedy)
    width = bundle.width
    if getattr(model, "n_features_in_", width) != width:
        said = f"it takes {model.n_features_in_} columns, and the run gives {width}"
        raise BundleError(said, where=where, remedy="Name the file that was written of this run")
    plain = {"mean": np.zeros(width), "scale": np.ones(width)}
    known = {"kind": "imported", "transform": "none", "temperature": 1.0, "arrays": plain, "model": model}
    return replace(bundle, **known, conformal=None, abstain=None)
