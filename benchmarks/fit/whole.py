"""A whole `fit`, everything in it, on 5,000 images and three taps: the first, a second, and one with other labels."""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.extract.harness import CORES, Figures, Goal, Numbers, timed, undisturbed
from benchmarks.fit.scale import write_features
from extract.store import open_features

N = 5_000
TAPS = {
    "ResNet-18's taps": {"layer2": 128, "layer3": 256, "penultimate": 512},
    "ResNet-50's taps": {"layer2": 512, "layer3": 1_024, "penultimate": 2_048},
}
SECONDS = 60.0


def whole(quick: bool) -> Figures:
    """Fit as the command does, one process each; the second fit and the one with other labels reuse what they can."""
    rows = [row for name, dims in list(TAPS.items())[: 1 if quick else None] for row in _fits(name, dims)]
    firsts = [row for row in rows if row["fit"] == "first"]
    goals = [_goal(row) for row in firsts]
    note = f"{N:,} images, 10 classes, {CORES} cores; taps of 128, 256, 512 features, and of 512, 1,024, 2,048."
    return Figures(rows, note, undisturbed(goals, [row["foreign_cores"] for row in rows]))


def _goal(row: Numbers) -> Goal:
    goal = f"fit on {N:,} x 3 taps ({row['taps']}), all of it: < {SECONDS:g} s"
    return Goal(goal, f"{row['whole_s']} s", row["whole_s"] < SECONDS)


def _fits(name: str, dims: Mapping[str, int]) -> Iterator[Numbers]:
    with tempfile.TemporaryDirectory(prefix="whole-") as temporary:
        folder = Path(temporary)
        index = write_features(folder, N, dims)
        others = ("--labels", _other_labels(folder, index))
        for what, options in (("first", ()), ("second", ()), ("other labels", others)):
            yield {"taps": name, **_fitted(folder, index, what, *options)}


def _fitted(folder: Path, index: Path, what: str, *options: object) -> Numbers:
    command = [
        sys.executable,
        "pipeline.py",
        "fit",
        index,
        "--strategy",
        "linear",
        "--out",
        folder / what.replace(" ", "-"),
        "--json",
        *options,
    ]
    found: Mapping = timed([str(word) for word in command])
    shown = {"inside_s": round(found["seconds"], 1), "whole_s": round(found["whole_s"], 1)}
    tried = {"configurations": found["selection"]["n_configurations"]}
    chosen = f"{' + '.join(found['layers'])} ({found['transform']})"
    return {"fit": what, **shown, **tried, "chosen": chosen, "foreign_cores": round(found["foreign_cores"], 2)}


def _other_labels(folder: Path, index: Path) -> Path:
    """Write labels that join the classes in pairs."""
    features, path = open_features(str(index), folder), folder / "other.csv"
    names = [f"pair {int(label) // 2}" for label in features.labels]
    lines = [f"{json.dumps(id_)},{name}" for id_, name in zip(features.ids, names, strict=True)]
    path.write_text("\n".join(["path,label", *lines]) + "\n", encoding="utf-8")
    return path
