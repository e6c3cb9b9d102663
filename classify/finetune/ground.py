"""What a fine-tuning stands on: its images, parts and splits, found before any long work; device, plan and examples."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from classify.finetune.bench import Bench, Split
from classify.finetune.budget import fit_budget
from classify.finetune.examples import Examples
from classify.finetune.image_examples import ImageExamples
from classify.finetune.images import Source, find_source
from classify.finetune.inner import inner_split
from classify.finetune.job import Device
from classify.finetune.launchers import group_of, notes_of
from classify.finetune.log import Log
from classify.finetune.map_examples import MapExamples
from classify.finetune.maps import MapSpec, map_rows, trunk_maps
from classify.finetune.mirror import mirror_test
from classify.finetune.pace import measure_pace
from classify.finetune.plan import Augment, Plan, make_plan
from classify.finetune.shown import Shown
from classify.finetune.strategies import STRATEGIES, kept_until, stages_below, trained_tap
from classify.inputs import Inputs
from classify.linear import Probe
from classify.probe.memo import digest
from classify.spec import FitSpec
from classify.tuning import AUTO, TuneSpec
from extract.backbones import read_state
from extract.devices import pick_device, resolve_precision
from extract.errors import TapError
from extract.parts import open_parts
from extract.progress import Silent, Watch
from extract.store import FeatureSet

SMALL, REPEATS = 2000, 3
"""Training images below which the last training is repeated, and how often: the seed matters there."""
Mirrored = tuple[bool, Any]
"""Whether images may be shown mirrored, and what a test says of that, None where it does not matter."""


@dataclass(frozen=True, eq=False)
class Ground:
    """Where the images are, how the network parts, and who is trained on when.

    `folds` are the first ones of the probe's: what is trained on, and the positions (m,) that are answered for. `last`
    is the split of all of the training part, trained on as often as `repeats` says.
    """

    source: Source
    tap: str
    until: str | None
    folds: list[tuple[Split, np.ndarray]]
    last: Split
    repeats: int


def survey(spec: FitSpec, inputs: Inputs) -> Ground:
    """Find the images, part the network and the training part, and see that what was asked for is installed.

    Raises an error of ours where one of these cannot be.
    """
    features, train, test = inputs.features, inputs.data.train, inputs.data.test
    Log(Silent(), spec.tune.tensorboard)  # refuses where TensorBoard is asked for and not there
    tap = trained_tap(features.recipe, tuple(inputs.dims))
    until = check_cut(spec.strategy, spec.tune, features, tap)
    source = find_source(features, np.concatenate([train.rows, test.rows]), spec.data, spec.root)
    folds = [(_split(inputs, fit, spec.seed), held) for fit, held in inputs.task.folds[: spec.tune.folds]]
    repeats = spec.tune.seeds or (REPEATS if len(train) < SMALL else 1)
    return Ground(source, tap, until, folds, _split(inputs, np.arange(len(train)), spec.seed), repeats)


def check_cut(strategy: str, tune: TuneSpec, features: FeatureSet, tap: str) -> str | None:
    """Name the layer up to which the network stays as it is; TapError says where else it can be parted."""
    recipe, known = features.recipe, STRATEGIES[strategy]
    until = kept_until(known, tune, recipe, tap)
    try:
        open_parts(recipe, read_state(features.weights_path), tap=tap, until=until)
    except TapError as error:
        if until is None:
            raise
        option, ends = "--cut" if known.cached else "--freeze-until", ", ".join(stages_below(recipe, tap))
        remedy = (
            f"Take the end of a stage that {option} can keep: {ends}; all layers: pipeline.py layers {recipe.model}"
        )
        raise TapError(error.what, where=recipe.model, remedy=remedy) from error
    return until


def check_cuts(spec: FitSpec, inputs: Inputs) -> None:
    """Refuse layers to keep the network up to that it cannot be parted at, whatever will be trained; TapError."""
    tap = trained_tap(inputs.features.recipe, tuple(inputs.dims))
    for strategy, layer in (("tail", spec.tune.cut), ("full", spec.tune.freeze_until)):
        if layer:
            check_cut(strategy, spec.tune, inputs.features, tap)


def _split(inputs: Inputs, at: np.ndarray, seed: int) -> Split:
    """Set a validation part of positions (n,) apart."""
    train = inputs.data.train
    fit, val = inner_split(train.y[at], None if train.groups is None else train.groups[at], seed)
    return Split(at[fit], at[val])


@contextmanager
def set_up(
    spec: FitSpec, inputs: Inputs, ground: Ground, probe: Probe, watch: Watch, mirrored: Mirrored | None = None
) -> Iterator[Bench]:
    """Choose device and plan, open the images or the maps that are made of them, and keep to the budget.

    `mirrored` is what `may_flip` has said before, where it has.
    """
    device, strategy = _device(spec), STRATEGIES[spec.strategy]
    flip, mirror = mirrored or may_flip(spec, inputs, ground.source, probe, watch)
    plan, notes = make_plan(
        spec.tune,
        spec.strategy,
        counts=np.bincount(inputs.data.train.y, minlength=len(inputs.data.classes)),
        preset=inputs.features.recipe.preprocessing,
        class_weight=spec.class_weight,
        flip=flip,
    )
    group = group_of(spec, plan, device)
    notes += notes_of(group, plan)
    for note in notes:
        watch.note(note)
    with (
        Log(watch, spec.tune.tensorboard) as log,
        _examples(spec, inputs, ground, plan, device, watch) as (examples, shown, data),
    ):
        bench = Bench(
            spec=spec,
            inputs=inputs,
            strategy=strategy,
            tap=ground.tap,
            until=ground.until,
            weights=read_state(inputs.features.weights_path),
            examples=examples,
            shown=shown,
            data=data,
            plan=plan,
            device=device,
            log=log,
            group=group,
            facts={"mirror": mirror, "notes": notes},
        )
        yield _within_budget(bench, ground)


def _device(spec: FitSpec) -> Device:
    device = pick_device(spec.device)
    return Device(str(device), resolve_precision(spec.tune.precision, device), compile=spec.tune.compile != "none")


def may_flip(spec: FitSpec, inputs: Inputs, source: Source, probe: Probe, watch: Watch) -> Mirrored:
    """Say whether images may be shown mirrored, and what a test says of that, where it matters."""
    if spec.tune.augment != AUTO and "flip" not in spec.tune.augment:
        return False, None
    records, best = source.records.values(), probe.judged.found.best
    found = mirror_test(inputs, best, records, device=spec.device, workers=spec.jobs, progress=watch)
    said = f"Of {found.n} images the probe names {found.accuracy:.1%} right, and of their mirror images"
    done = "they may be trained on" if found.flip else "none is trained on"
    return found.flip, found.as_dict() | {"words": f"{said} {found.mirrored:.1%}: {done}"}


@contextmanager
def _examples(
    spec: FitSpec, inputs: Inputs, ground: Ground, plan: Plan, device: Device, watch: Watch
) -> Iterator[tuple[Examples, Shown, str]]:
    """Open the images, or the maps that are made of them: the training part, and behind it the test part.

    -> the examples, how another process opens them, and what names all they are read from.
    """
    features, source, parts = inputs.features, ground.source, (inputs.data.train, inputs.data.test)
    rows, y = np.concatenate([part.rows for part in parts]), np.concatenate([part.y for part in parts])
    named = f"{features.digest} {digest(rows)}"
    if not STRATEGIES[spec.strategy].cached:
        listed = source.records.values()
        with ImageExamples(features, listed, rows, y, workers=spec.jobs, device=device.torch) as examples:
            yield examples, Shown(features.path, rows, y, source.data, source.root), named
        return
    wanted = wanted_maps(spec, ground, plan.augment)
    with trunk_maps(features, wanted, watch) as maps:
        at = map_rows(maps, features, rows)
        examples = MapExamples(maps, wanted.layer, at, y, device=device.torch)
        shown = Shown(features.path, at, y, source.data, source.root, maps.path, wanted.layer)
        yield examples, shown, f"{named} {maps.digest}"


def wanted_maps(spec: FitSpec, ground: Ground, augment: Augment) -> MapSpec:
    """Say which maps a tail trains on."""
    return MapSpec(
        str(ground.until),
        ground.source.data,
        ground.source.root,
        views=_views(spec.tune.views, augment),
        flips=augment.flip,
        device=spec.device,
        workers=spec.jobs,
    )


def _views(asked: int, augment: Augment) -> int:
    """Say how many views there is a use for: the centre, its mirror image, and crops only where they are drawn."""
    return asked if augment.crop else min(asked, 1 + augment.flip)


def _within_budget(bench: Bench, ground: Ground) -> Bench:
    """Shorten the trainings to what there is time for, by how long a step and a look take here."""
    tune = bench.spec.tune
    if tune.budget_s is None:
        return bench
    split = ground.folds[0][0] if ground.folds else ground.last
    step_s, look_s = measure_pace(bench, split, bench.spec.seed)
    n_trainings = len(ground.folds) + ground.repeats - 1
    plan, notes = fit_budget(bench.plan, step_s, look_s, tune.budget_s, n_trainings)
    for note in notes:
        bench.log.note(note)
    facts = bench.facts | {"budget_s": tune.budget_s, "notes": bench.facts["notes"] + notes}
    return replace(bench, plan=plan, facts=facts)
