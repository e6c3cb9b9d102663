"""Any classifier by its import path, for those who want another than ours."""

import difflib
import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor

from classify.heads.head import Head, builder
from classify.heads.params import settings
from classify.heads.table import ANY
from extract.errors import OptionError

EXAMPLE = "Name a classifier by its path, as in sklearn.ensemble.RandomForestClassifier"


def imported(path: str, params: Mapping[str, Sequence[Any]] | None = None) -> Head:
    """Make a head of the class at `path`, with the settings of `params` to try. Importing it runs its module's code.

    OptionError where there is no such class, where it is no classifier, or where it does not take a parameter.
    """
    cls = _find(path)
    grid = settings(params or {})
    sample, *_ = [_instance(cls, path, setting) for setting in grid]
    _check_classifier(path, sample)
    known = sample.get_params(deep=False)
    weighs = "class_weight" in known and "class_weight" not in (params or {})

    def make(value: dict[str, Any], seed: int, class_weight: str | None) -> Any:
        return cls(**_defaults(cls, known, seed, class_weight) | value)

    return Head(path, "imported", builder(path, make, ANY, weighs=weighs), grid=grid, transforms=ANY, weighs=weighs)


def _defaults(cls: type, known: Mapping[str, Any], seed: int, class_weight: str | None) -> dict[str, Any]:
    """Return what is set wherever the class knows it: the seed, one core, the weights of classes."""
    # scikit-learn's None is one core already, and some of its classes warn of any other value; others take all cores.
    ours = cls.__module__.partition(".")[0] == "sklearn" and known.get("n_jobs") is None
    wanted = {"random_state": seed} | ({} if ours else {"n_jobs": 1})
    wanted |= {} if class_weight is None else {"class_weight": class_weight}
    return {name: value for name, value in wanted.items() if name in known}


def _find(path: str) -> type:
    """Import the class at `path`; OptionError names what is nearest to it."""
    module_name, _, name = path.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in path.split(".")):
        raise OptionError(f"{path!r} is no import path", remedy=EXAMPLE)
    module = _import(module_name)
    try:
        found = getattr(module, name)
    except AttributeError as error:
        names = [each for each in dir(module) if not each.startswith("_")]
        raise OptionError(f"{module_name} has no {name!r}{_nearest(name, names)}", remedy=EXAMPLE) from error
    if not inspect.isclass(found):
        raise OptionError(f"{path} is {_kind(found)} and no class", remedy=EXAMPLE)
    return found


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if missing != name and not name.startswith(f"{missing}."):  # a module of theirs that needs another
            raise OptionError(f"{name} needs {missing}, which is not installed", remedy="Install it") from error
        said = f"no module {missing!r}{_nearest(missing.rpartition('.')[2], _siblings(missing))}"
        raise OptionError(said, remedy="Install what holds it, or mend the path") from error
    except Exception as error:
        raise OptionError(f"cannot import {name}: {error}", remedy="Import it in Python to see why") from error


def _siblings(name: str) -> list[str]:
    """List the modules beside a missing one: those of its package, or all that are installed."""
    package = name.rpartition(".")[0]
    where = getattr(importlib.import_module(package), "__path__", []) if package else None
    return [module.name for module in pkgutil.iter_modules(where)]


def _nearest(name: str, names: Sequence[str]) -> str:
    found = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return f" (nearest: {', '.join(map(repr, found))})" if found else ""


def _kind(thing: Any) -> str:
    if inspect.ismodule(thing):
        return "a module"
    return "a function" if callable(thing) else f"a {type(thing).__name__}"


def _instance(cls: type, path: str, setting: Mapping[str, Any]) -> Any:
    """Make one with the setting; OptionError where it does not take a name or value, or needs what it was not given."""
    if not all(hasattr(cls, name) for name in ("fit", "get_params", "__sklearn_tags__")):
        raise OptionError(f"{path} is no scikit-learn estimator", remedy=EXAMPLE)
    _check_names(cls, path, setting)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a class that is about to be refused, or that warns again when it fits
            model = cls(**setting)
            if hasattr(model, "_parameter_constraints"):
                model._validate_params()  # scikit-learn itself waits for the first fit
    except Exception as error:
        raise OptionError(f"cannot make {path}: {error}", remedy="Give what it needs by --param NAME=VALUE") from error
    return model


def _check_names(cls: type, path: str, setting: Mapping[str, Any]) -> None:
    parameters = inspect.signature(cls).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return  # as of boosting libraries, which pass on what they do not list
    for name in setting:
        if name not in parameters:
            said = f"{path} has no parameter {name!r}{_nearest(name, list(parameters))}"
            raise OptionError(said, remedy=f"Give one of {', '.join(parameters)}")


KINDS = {"a regressor": is_regressor, "a clusterer": is_clusterer, "an outlier detector": is_outlier_detector}


def _check_classifier(path: str, model: Any) -> None:
    """Refuse what is no classifier that scores its classes, and say what it is."""
    if not is_classifier(model):
        found = [kind for kind, test in KINDS.items() if test(model)]
        kind = (found or ["a transformer" if hasattr(model, "transform") else "an estimator of another kind"])[0]
        raise OptionError(f"{path} is {kind} and no classifier", remedy=EXAMPLE)
    if not any(hasattr(model, method) for method in ("predict_proba", "decision_function")):
        said = f"{path} has neither predict_proba nor decision_function"
        raise OptionError(said, remedy="Take a classifier that scores its classes, or a setting in which it does")
