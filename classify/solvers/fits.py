"""Fits of scikit-learn's own solvers: side by side on threads, their warnings noted instead of shown."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from joblib import Parallel
from scipy.linalg import LinAlgWarning
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from classify.heads import converged

HARMLESS = (
    ("self.within_class_std_dev_", ""),  # of features that are 0 everywhere, as ReLUs have them; our scores use none
    ("", r"sklearn\.neighbors\._nearest_centroid"),  # the same deviation, where every class has one row
    ("Only one sample available", ""),  # LDA shrinks such a class all the way, as it should
)
"""Warnings about no number that we use: (message, module) patterns."""
_trouble = threading.local()


def run_jobs(jobs: list, n_jobs: int) -> Iterator[Any]:
    """Run joblib's delayed calls, in order: here, or on threads, which share X.

    Threads: 20 fits of 1,500 x 512, 10 classes took 1.8 s here, 1.0 s on 2 threads, 2.8 s on 2 fresh processes.
    """
    if n_jobs == 1:
        return (call(*args, **kwargs) for call, args, kwargs in jobs)
    return iter(Parallel(n_jobs=n_jobs, backend="threading", return_as="generator")(jobs))


def fit_noted(pipeline: Pipeline, X: np.ndarray, y: np.ndarray) -> tuple[Pipeline, bool]:
    """Fit, and say whether the solver came to its end; call it under `quiet_fits`."""
    _trouble.seen = False
    pipeline.fit(X, y)
    return pipeline, converged(pipeline) and not _trouble.seen


@contextmanager
def quiet_fits() -> Iterator[None]:
    """Keep solvers' warnings off the terminal, noted for `fit_noted`, and BLAS to one thread.

    Two BLAS threads slow these fits up to fivefold (reference/perf.md 4); filters are the process's, so they are set
    once around all threads.
    """
    with threadpool_limits(1), warnings.catch_warnings():
        show = warnings.showwarning

        def note(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
            if issubclass(category, ConvergenceWarning | LinAlgWarning):
                _trouble.seen = True
            else:
                show(message, category, *args, **kwargs)

        for message, module in HARMLESS:
            warnings.filterwarnings("ignore", message=message, module=module)
        for category in (ConvergenceWarning, LinAlgWarning):
            warnings.simplefilter("always", category)
        warnings.showwarning = note
        yield
