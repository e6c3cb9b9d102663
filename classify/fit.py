"""Features -> a classifier with its evidence: which road a fit takes."""

import logging
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from classify.cluster import connected
from classify.linear import fit_linear
from classify.published import follow
from classify.several import fit_several
from classify.spec import AUTO, FitSpec
from classify.tuning import LINEAR
from extract.progress import Silent, Watch

log = logging.getLogger(__name__)


def fit(spec: FitSpec, *, progress: Watch | None = None) -> dict[str, Any]:
    """Write a run, by search or by a published protocol, and return the content of its metrics.json."""
    with connected(spec):
        metrics = road_of(spec)(spec, progress or Silent())
    for text in metrics["warnings"]:
        log.warning("%s", text)
    return metrics


def road_of(spec: FitSpec) -> Callable[[FitSpec, Watch], dict[str, Any]]:
    """Choose who fits: the search, a protocol, several labels, or what trains networks, which alone imports torch."""
    if spec.strategy == AUTO:
        from classify.advise.auto import fit_auto

        return fit_auto
    if spec.strategy != LINEAR:
        from classify.finetune.story import fine_tune

        return fine_tune
    return follow if spec.published else fit_several if spec.multi_label else fit_linear


class CallableModule(ModuleType):
    """This module, which may be called as its function.

    `from classify import fit` can only mean the submodule of this name, whichever of the two was imported first.
    """

    def __call__(self, spec: FitSpec, *, progress: Watch | None = None) -> dict[str, Any]:
        """Do what the function `fit` does."""
        return fit(spec, progress=progress)


sys.modules[__name__].__class__ = CallableModule
