"""A whole `fit`, everything in it, on 5,000 images and three taps: the first, a second, and one with other labels."""

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.extract.harness import CORES, Figures, Goal, Numbers, timed, undisturbed
from benchmarks.fit.scale import write_features
from extract.store import open_features

N, DIMS = 5_000, {"layer2": 512, "layer3": 1_024, "penultimate": 2_048}
QUICK = {"layer2": 128, "layer3": 256, "penultimate": 512}
SECONDS = 60.0


def whole(quick: bool) -> Figures:
    """Fit as the command does, one process each; the second fit and the one with other labels reuse what they can."""
    with tempfile.TemporaryDirectory(prefix="whole-") as temporary:
        folder, dims = Path(temporary), QUICK if quick else DIMS
        index = write_features(folder, N, dims)
        labels = _other_labels(folder, index)
        rows = [
            _fitted(folder, index, "first"),
            _fitted(folder, index, "second"),
            _fitted(folder, index, "other labels", "--labels", labels),
        ]
    took = rows[0]["whole_s"]
    goal = Goal(f"fit on {N:,} x 3 taps, all of it: < {SECONDS:g} s", f"{took} s", took < SECONDS)
    note = f"{N:,} images, taps of {', '.join(map(str, dims.values()))} features, 10 classes, {CORES} cores."
    return Figures(rows, note, undisturbed([goal], [row["foreign_cores"] for row in rows]))


def _fitted(folder: Path, index: Path, what: str, *options: object) -> Numbers:
    command = [
        sys.executable,
        "pipeline.py",
        "fit",
        index,
        "--out",
        folder / what.replace(" ", "-"),
        "--json",
        *options,
    ]
    found: Mapping = timed([str(word) for word in command])
    chosen = f"{' + '.join(found['layers'])} ({found['transform']})"
    shown = {"inside_s": round(found["seconds"], 1), "whole_s": round(found["whole_s"], 1)}
    tried = {"configurations": found["selection"]["n_configurations"], "chosen": chosen}
    return {"fit": what, **shown, **tried, "foreign_cores": round(found["foreign_cores"], 2)}


def _other_labels(folder: Path, index: Path) -> Path:
    """Write labels that join the classes in pairs."""
    features, path = open_features(str(index), folder), folder / "other.csv"
    names = [f"pair {int(label) // 2}" for label in features.labels]
    lines = [f"{json.dumps(id_)},{name}" for id_, name in zip(features.ids, names, strict=True)]
    path.write_text("\n".join(["path,label", *lines]) + "\n", encoding="utf-8")
    return path
