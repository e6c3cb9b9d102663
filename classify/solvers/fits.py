"""Fits of scikit-learn's own solvers: side by side on threads, their warnings noted instead of shown."""

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from joblib import Parallel, delayed, parallel_config
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
Fit = Callable[..., Any]
_trouble = threading.local()


def run_jobs(
    fit: Fit, shared: Sequence[Any], jobs: Sequence[Sequence[Any]], n_jobs: int, *, ray: bool
) -> Iterator[Any]:
    """Call `fit(*shared, *job)` for each job, under `quiet_fits`, and yield in order: here, on threads, or on Ray.

    Threads: 20 fits of 1,500 x 512, 10 classes took 1.8 s here, 1.0 s on 2 threads, 2.8 s on 2 fresh processes.
    """
    if ray:
        yield from _on_ray(fit, shared, jobs)
    elif n_jobs == 1:
        yield from (fit(*shared, *job) for job in jobs)
    else:
        calls = (delayed(fit)(*shared, *job) for job in jobs)
        yield from Parallel(n_jobs=n_jobs, backend="threading", return_as="generator")(calls)


def _on_ray(fit: Fit, shared: Sequence[Any], jobs: Sequence[Sequence[Any]]) -> Iterator[Any]:
    """Call it in the actors of joblib's Ray backend, on as many CPUs as there are; a dead one is replaced.

    What is shared goes to each machine once. Of Ray's own retries none is bounded: while a node that died is not yet
    given up, each call uses one.
    """
    import ray
    from ray.util.joblib import register_ray

    register_ray()
    kept, forever = ray.put(tuple(shared)), {"max_restarts": -1, "max_task_retries": -1}
    with parallel_config(backend="ray", ray_remote_args=forever):
        yield from Parallel(n_jobs=-1)(delayed(_fitted_there)(fit, kept, job) for job in jobs)


def _fitted_there(fit: Fit, kept: Any, job: Sequence[Any]) -> Any:
    """Do one job in an actor."""
    import ray

    with quiet_fits():
        return fit(*ray.get(kept), *job)


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
