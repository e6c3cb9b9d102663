"""Features -> answers: heads on cached features, their evidence, and what a run deploys.

from classify import FitSpec, fit
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from classify.fit import fit
    from classify.spec import FitSpec

__all__ = ["FitSpec", "fit"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is, as scikit-learn is; the module `fit` can be called as its function."""
    if name == "fit":
        return import_module("classify.fit")
    if name == "FitSpec":
        return import_module("classify.spec").FitSpec
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
