"""An epoch of the last stage of ResNet-18: on cached maps, with the trunk run live, and by the usual script."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.extract import photos
from benchmarks.extract.harness import Figures, Numbers, Place, at_least, ratios, spread, timed, undisturbed, watched
from benchmarks.image_sets import data_folder
from classify.finetune.begin import begin
from classify.finetune.bench import Bench, Split
from classify.finetune.ground import set_up, survey
from classify.finetune.loop import train
from classify.linear import begin_fit, fit_probe
from classify.spec import FitSpec
from classify.tuning import TuneSpec
from extract.progress import Silent
from extract.run import extract
from extract.spec import BackboneSpec, ExtractSpec

N, ROUNDS, BATCH, CUT, VIEWS = 512, 3, 32, "layer3", 4
LEAST = 5.0
NAIVE = "the usual script"
CACHED, HALF, LIVE = "tail, cached maps", "tail, cached maps, bf16", "the same layers, trunk run live"
WAYS = {
    CACHED: ("tail", TuneSpec(cut=CUT, views=VIEWS, batch_size=BATCH, folds=0, seeds=1)),
    HALF: ("tail", TuneSpec(cut=CUT, views=VIEWS, batch_size=BATCH, folds=0, seeds=1, precision="bf16")),
    LIVE: ("lp-ft", TuneSpec(freeze_until=CUT, batch_size=BATCH, folds=0, seeds=1)),
}


def tail(quick: bool) -> Figures:
    """Time epochs in interleaved rounds; images, batches and what is drawn of them are alike."""
    with tempfile.TemporaryDirectory(prefix="tail-") as temporary:
        place = Place(Path(temporary), data_folder(), quick)
        folder = photos.small(place, place.share(N))
        features = extracted(folder, place.work / "cache")
        rounds = [_round(folder, features, place) for _ in range(place.rounds(ROUNDS))]
    seconds = {way: [each[way] for each in rounds] for way in (NAIVE, *WAYS)}
    rows = [
        {"way": way, "s an epoch": spread(took), f"{NAIVE} takes": ratios(seconds[NAIVE], took)}
        for way, took in seconds.items()
    ]
    goals = [
        at_least(f"an epoch of layer4: {way} against {NAIVE} in fp32: >= {LEAST:g}x", _gain(seconds, way), LEAST)
        for way in (CACHED, HALF)
    ]
    note = (
        f"{place.share(N)} photos of 500 x 375, ResNet-18 at 224 pixels, batches of {BATCH}, {VIEWS} cached views; "
        "random resized crops and mirror images everywhere. The usual script has two loading processes and no "
        "gradients below layer4, as ours."
    )
    return Figures(rows, note, undisturbed(goals, [each["foreign_cores"] for each in rounds]))


def _gain(seconds: Mapping[str, Sequence[float]], way: str) -> float:
    return ratios(seconds[NAIVE], seconds[way])["value"]


def _round(folder: Path, features: str, place: Place) -> Numbers:
    naive = timed([sys.executable, "-m", "benchmarks.finetune.naive", str(folder), "--batch", str(BATCH)])
    found, foreign = {NAIVE: naive["epochs_s"][-1]}, naive["foreign_cores"]
    for way, (strategy, tune) in WAYS.items():
        spec = FitSpec(features, cache=place.work / "cache", strategy=strategy, tune=tune, duplicates="off")
        with watched() as watch:
            found[way] = epoch_s(spec, place.share(N))
        foreign = max(foreign, watch.foreign_cores)
    return {**found, "foreign_cores": foreign}


def extracted(folder: Path, cache: Path) -> str:
    """Extract the photos with random weights, whose speed is that of any: -> the path of the features."""
    backbone = BackboneSpec("resnet18", "none")
    return extract(ExtractSpec(str(folder), "photos", backbone=backbone, cache=cache))["path"]


def epoch_s(spec: FitSpec, n: int) -> float:
    """Time what a training of two epochs takes longer than one of one, an epoch being n images."""
    inputs, _ = begin_fit(spec, Silent())
    ground = survey(spec, inputs)
    with set_up(spec, inputs, ground, fit_probe(spec, inputs, Silent()), Silent()) as bench:
        one, two = (_training_s(bench, ground.last, epochs * n // BATCH) for epochs in (1, 2))
    return two - one


def _training_s(bench: Bench, split: Split, steps: int) -> float:
    plan = replace(bench.plan, steps=steps, evaluate_every=steps, warmup_steps=0, drops=())
    job = replace(bench.job("an epoch", split, 0, plan.settings[0], trial=True), plan=plan)
    with tempfile.TemporaryDirectory() as folder:
        network = begin(bench, split.train, 0)
        return train(network, bench.examples, job, bench.device, Path(folder), bench.log).seconds
