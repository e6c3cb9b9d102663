"""Options that `fit` and `advise` share, and those of `fit --strategy`, in a part of the help of their own."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from classify.tuning import AUGMENTS, AUTO, BN_MODES, COMPILERS, OPTIMIZERS, PRECISIONS, RECIPES, TuneSpec
from extract.recipe import MAX_VIEWS
from extract.spec import ENGINES, available_cores

PREFIX = "tune_"
"""Of the names under which click hands the options over; `views` and `precision` mean other things elsewhere."""

SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
POSITIVE = click.FloatRange(0, min_open=True)
SHARE = click.FloatRange(0, 1)
DECAY = click.FloatRange(0, 1, min_open=True)
FOLDER = click.Path(file_okay=False, path_type=Path)


class Tuning(click.Option):
    """An option that only fine-tuning takes."""


class FitCommand(click.Command):
    """A command whose help lists the options of fine-tuning apart."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then those of fine-tuning."""
        parts: dict[bool, list[tuple[str, str]]] = {False: [], True: []}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                parts[isinstance(param, Tuning)].append(record)
        for title, tuning in (("Options", False), ("Fine-tuning, with any other --strategy than linear", True)):
            if parts[tuning]:
                with formatter.section(title):
                    formatter.write_dl(parts[tuning])


class Duration(click.ParamType):
    """A time: 90, 90s, 10m, 2h."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read what the user typed: -> seconds."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(value))
        if not found or not float(found[1]):
            self.fail(f"{value!r} is no time above 0: 90s, 10m, 2h", param, ctx)
        return float(found[1]) * SECONDS[found[2]]


class AutoOr(click.ParamType):
    """A number, or `auto`."""

    name = "auto|share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Read what the user typed."""
        return AUTO if value == AUTO else SHARE.convert(value, param, ctx)


def _choice(known: tuple[str, ...]) -> dict[str, Any]:
    return {"type": click.Choice([AUTO, *known]), "default": AUTO}


OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("cut", {"metavar": "LAYER", "help": "tail: keep the network up to here.  [default: all but its last stage]"}),
    ("freeze-until", {"metavar": "LAYER", "help": "lp-ft, full: keep the network up to here."}),
    (
        "bn",
        {**_choice(BN_MODES), "help": "What BatchNorm learns: nothing, its weights, all, or new statistics at once."},
    ),
    (
        "recipe",
        {**_choice(RECIPES), "help": "auto goes by the images a class; bit: BiT-HyperRule; kornblith: its grid."},
    ),
    ("optimizer", {**_choice(OPTIMIZERS), "help": "auto is sgd, which the recipes are for."}),
    ("rate", {"type": POSITIVE, "multiple": True, "help": "Learning rate to try, repeatable."}),
    ("weight-decay", {"type": click.FloatRange(0), "help": "Weight decay."}),
    ("steps", {"type": click.IntRange(1), "help": "Steps of a training."}),
    ("batch-size", {"type": click.IntRange(1, 4096), "help": "Images in a step."}),
    ("augment", {**_choice(AUGMENTS), "help": "What is drawn of a training image; auto tests whether flips hurt."}),
    ("mixup", {"type": SHARE, "metavar": "ALPHA", "help": "Mix images in pairs; 0 for none."}),
    ("label-smoothing", {"type": SHARE, "help": "Share of a label that all classes get."}),
    ("ema/--no-ema", {"default": None, "help": "Average the weights over the steps."}),
    ("layer-decay", {"type": DECAY, "default": 1.0, "help": "Multiplies the rate from each block to the one below."}),
    ("gradual", {"is_flag": True, "help": "Let the blocks begin one after the other, from the top."}),
    ("wise", {"type": AutoOr(), "help": "Mix the weights of start and end; the share of the end."}),
    (
        "folds-trained",
        {
            "type": click.IntRange(0),
            "default": 1,
            "help": "Folds to train without, and answer for; auto takes more where time allows.",
        },
    ),
    (
        "seeds",
        {
            "type": click.IntRange(1, 100),
            "help": "Trainings on all images.  [default: 3 below 2,000 images, 1 with auto]",
        },
    ),
    ("views", {"type": click.IntRange(1, MAX_VIEWS), "default": 4, "help": "tail: looks at an image that are cached."}),
    (
        "budget",
        {
            "type": Duration(),
            "help": "Time for all trainings: 90s, 10m, 2h. With auto, for all beyond the probe but for writing "
            "the run.  [default: 10m with auto]",
        },
    ),
    ("checkpoint-every", {"type": Duration(), "default": "60s", "help": "How much a kill may cost."}),
    ("precision", {**_choice(PRECISIONS), "help": "auto is fp32 on a CPU, bf16 on a GPU that has it."}),
    ("compile", {"type": click.Choice(COMPILERS), "default": "none", "help": "What compiles the trained part."}),
    ("tensorboard", {"type": FOLDER, "help": "Write event files into this folder."}),
    (
        "processes",
        {"type": click.IntRange(1), "help": "Train each network on so many GPUs, or by so many processes of a CPU."},
    ),
)
"""What `--NAME` takes; the field of `TuneSpec` is the name, or what FIELDS says."""

FIELDS = {
    "rate": "rates",
    "ema/--no-ema": "ema",
    "folds-trained": "folds",
    "budget": "budget_s",
    "checkpoint-every": "checkpoint_s",
}


SHARED: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "layers": (
        ("-l", "--layer"),
        {"multiple": True, "help": "Taps to compare.  [default: all of the features]"},
    ),
    "metric": (
        ("--metric",),
        {
            "default": AUTO,
            "help": "What the search maximises: accuracy, balanced_accuracy, macro_f1; auto goes by how uneven the "
            "classes are.",
        },
    ),
    "cv": (("--cv",), {"type": click.IntRange(2, 100), "default": 5, "help": "Folds of the cross-validation."}),
    "group": (
        ("--group",),
        {
            "default": AUTO,
            "metavar": "auto|none|PATTERN",
            "help": "Groups stay in one fold: those of the features, none, or what a pattern finds in the ids: "
            "'_([a-z]+)_'.",
        },
    ),
    "duplicates": (
        ("--duplicates",),
        {
            "type": click.Choice([AUTO, "always", "off"]),
            "default": AUTO,
            "help": "Look for near-duplicates and keep them in one fold; auto: unless it would take minutes.",
        },
    ),
    "labels": (
        ("--labels",),
        {"type": click.Path(path_type=Path), "help": "CSV (path,label) whose labels replace the stored ones."},
    ),
    "data": (("--data",), {"help": "Where the images are, to look at or to train on.  [default: where they were]"}),
    "seed": (
        ("--seed",),
        {
            "type": click.IntRange(0, 2**32 - 1),
            "default": 0,
            "help": "Seed of folds, hold-out, bootstrap and trainings.",
        },
    ),
    "device": (
        ("--device",),
        {
            "type": click.Choice([AUTO, "cpu", "cuda"]),
            "default": AUTO,
            "help": "Where heads and networks are trained.",
        },
    ),
    "jobs": (
        ("-j", "--jobs"),
        {
            "type": click.IntRange(1, 256),
            "default": available_cores,
            "show_default": "cores",
            "help": "Fits, or decoding processes, at a time.",
        },
    ),
    "engine": (
        ("--engine",),
        {
            "type": click.Choice(ENGINES),
            "default": "local",
            "help": "This machine, or a Ray cluster, for networks and for heads of scikit-learn.",
        },
    ),
    "address": (
        ("--address",),
        {"help": "Of ray: the cluster, auto or HOST:PORT.  [default: a private one here]"},
    ),
    "min_gain": (
        ("--min-gain",),
        {
            "type": click.FloatRange(0, 1, max_open=True),
            "default": 0.01,
            "help": "Least gain that training the network is worth, as a share of the images: 0.01 is a point.",
        },
    ),
}
"""Options that mean the same to both commands, by the field of `FitSpec` that each sets."""


def shared_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add some of them, in this order."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names):
            flags, known = SHARED[name]
            command = click.option(*flags, name, **known)(command)
        return command

    return add


def tuning_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add all of them."""
    for name, known in reversed(OPTIONS):
        target = PREFIX + FIELDS.get(name, name.replace("-", "_"))
        command = click.option(f"--{name}", target, cls=Tuning, **known)(command)
    return command


def split_tuning(options: dict[str, Any]) -> tuple[dict[str, Any], TuneSpec]:
    """Take the options of fine-tuning out of those of a command: -> the others, and the spec that they make."""
    mine = {name.removeprefix(PREFIX): value for name, value in options.items() if name.startswith(PREFIX)}
    return {name: value for name, value in options.items() if not name.startswith(PREFIX)}, TuneSpec(**mine)
