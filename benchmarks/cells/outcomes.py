"""What a run came to, image by image: read from its folder, kept in a page's JSON, compared with another."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.extract.harness import CORES, ROOT, Numbers
from classify.evaluate import Resamples, draw_resamples
from classify.statistics import Comparison, paired

REST = ("n_train", "steps", "seconds", "probe_s", "foreign_cores", "told")
RUNS = "runs"
"""The key of what a row keeps of its runs; no page shows it."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """Which test images a run has right, (n,) bool in the order of their ids, and what that took.

    `groups` (n,) are codes, None where every image stands alone. `seconds` are those of the whole run, `probe_s` those
    of the probe in it. `steps` are those planned of a training. `told` is what else is to be known of it.
    `foreign_cores` are those that others kept busy meanwhile, None where that was not looked at.
    """

    right: np.ndarray
    groups: np.ndarray | None
    n_train: int
    seconds: float
    probe_s: float
    steps: int | None = None
    told: Numbers = field(default_factory=dict)
    foreign_cores: float | None = None

    @property
    def undisturbed(self) -> bool:
        """Say whether it is known to have had the machine to itself, so that its seconds tell what it costs."""
        return self.foreign_cores is not None and self.foreign_cores <= CORES / 10

    @property
    def accuracy(self) -> float:
        """Return the share of test images that are right."""
        return float(self.right.mean())

    def resamples(self) -> Resamples:
        """Draw test images, or whole groups of them; alike for all runs on the same images."""
        return draw_resamples(len(self.right), self.groups, 0)

    def as_dict(self) -> Numbers:
        """Return it as JSON has it: a bit for each image in hex, a letter for each one's group."""
        groups = None if self.groups is None else "".join(chr(ord("a") + code) for code in self.groups)
        images = {"n": len(self.right), "right": np.packbits(self.right).tobytes().hex(), "groups": groups}
        took = {"seconds": self.seconds, "probe_s": self.probe_s, "foreign_cores": self.foreign_cores}
        return {**images, "n_train": self.n_train, "steps": self.steps, **took, "told": self.told}

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> "Outcome":
        """Return what `as_dict` has kept."""
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(kept["right"]), np.uint8), count=kept["n"])
        groups = kept["groups"] and np.array([ord(letter) - ord("a") for letter in kept["groups"]])
        rest = {name: kept[name] for name in REST}
        return cls(bits.astype(bool), groups, **rest)


def read_run(folder: Path, group: Any = None) -> Outcome:
    """Read what a run in a folder came to; `group` names the group of an image by its id."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["id"])
    right = np.array([row["label"] == row["predicted"] for row in rows])
    groups = np.unique([group(row["id"]) for row in rows], return_inverse=True)[1] if group else None
    steps = metrics["finetune"]["plan"]["steps"] if "finetune" in metrics else None
    took = {"seconds": metrics["seconds"], "probe_s": _probe_s(metrics), "foreign_cores": _foreign_cores(folder)}
    return Outcome(right, groups, metrics["n_train"], steps=steps, told=_told(metrics), **took)


def note_load(folder: Path, foreign_cores: float) -> None:
    """Write beside a run's folder how many cores others kept busy meanwhile."""
    path = folder.with_name(f"{folder.name}.json")
    path.write_text(json.dumps({"foreign_cores": round(foreign_cores, 2)}), encoding="utf-8")


def _foreign_cores(folder: Path) -> float | None:
    path = folder.with_name(f"{folder.name}.json")
    return json.loads(path.read_text(encoding="utf-8"))["foreign_cores"] if path.is_file() else None


def _probe_s(metrics: Mapping[str, Any]) -> float:
    """Say what the probe took; a run of nothing else is that of the probe, and writes it."""
    if metrics["advice"]:
        return metrics["advice"]["ladder"][0]["seconds"]
    return metrics["probe"]["seconds"] if "probe" in metrics else metrics["seconds"]


def _told(metrics: Mapping[str, Any]) -> Numbers:
    """Return the strategy, and of a run that chose it itself which rung that is, and what it says of why."""
    advice = metrics["advice"]
    if not advice:
        return {"strategy": metrics["strategy"]}
    asked = ("rung", "tried", "accepted", "reason", "seconds")
    ladder = [{name: row[name] for name in asked} for row in advice["ladder"]]
    told = {"strategy": advice["recommendation"].get("rung", metrics["strategy"]), "case": advice["case"]["name"]}
    return told | {"budget_s": advice["budget_s"], "ladder": ladder}


def compare(new: Outcome, old: Outcome) -> Comparison:
    """Compare two runs on the same test images: accuracy of new - old, groups whole."""
    a, b = (each.right.astype(np.int64) for each in (new, old))
    return paired(np.ones_like(a), a, b, new.resamples(), "accuracy")


def kept_outcomes(suite: str, measurement: str, folder: Path = ROOT / "benchmarks") -> dict[str, dict[str, Outcome]]:
    """Read what a page's JSON keeps of runs: -> by the name of the cell, and by that of the run."""
    path = folder / f"{suite}.json"
    lines = json.loads(path.read_text(encoding="utf-8"))["measurements"] if path.exists() else []
    rows = [row for line in lines if line["name"] == measurement for row in line["rows"] if RUNS in row]
    return {
        row[RUNS]["cell"]: {name: Outcome.from_dict(each) for name, each in row[RUNS]["outcomes"].items()}
        for row in rows
    }


def keep(cell: str, outcomes: Mapping[str, Outcome]) -> Numbers:
    """Return what a row keeps of its runs, for `kept_outcomes` to read."""
    return {RUNS: {"cell": cell, "outcomes": {name: each.as_dict() for name, each in outcomes.items()}}}
