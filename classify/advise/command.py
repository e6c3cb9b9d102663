"""The command that does by itself what was done here: a fit by a strategy, and what else it was told."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from numpy import format_float_positional

from classify.options import FIELDS
from classify.spec import FitSpec
from classify.tuning import TuneSpec

OPTIONS = {
    "cache": "cache",
    "layers": "layer",
    "class_weight": "class-weight",
    "metric": "metric",
    "cv": "cv",
    "group": "group",
    "duplicates": "duplicates",
    "labels": "labels",
    "hold_out": "hold-out",
    "alpha": "alpha",
    "answer_accuracy": "answer-accuracy",
    "data": "data",
    "root": "root",
    "seed": "seed",
    "device": "device",
    "min_gain": "min-gain",
}
"""Fields of a fit, and the options that set them. Where it goes, and on how many cores, is for who runs it to say."""

TUNED = {field: option for option, field in FIELDS.items()}


def command_of(spec: FitSpec) -> list[str]:
    """Write a fit as a command, with what differs from the defaults."""
    said = ["offshelf", "fit", spec.features, "--strategy", spec.strategy]
    asked = [(option, getattr(spec, name), _default(FitSpec, name)) for name, option in OPTIONS.items()]
    asked += [
        (TUNED.get(field.name, field.name.replace("_", "-")), getattr(spec.tune, field.name), field.default)
        for field in fields(TuneSpec)
    ]
    return said + [word for option, value, default in asked if value != default for word in _written(option, value)]


def _default(kind: Any, name: str) -> Any:
    return kind.__dataclass_fields__[name].default


def _written(option: str, value: Any) -> Iterator[str]:
    """Write an option: one that is on or off by its name alone, one of several values once for each."""
    if isinstance(value, bool):
        on, _, off = option.partition("/")
        yield f"--{on}" if value else off
        return
    for each in value if isinstance(value, tuple) else (value,):
        yield from (f"--{option}", format_float_positional(each, trim="-") if isinstance(each, float) else str(each))
