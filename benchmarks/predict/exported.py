"""Exported programs: how far their probabilities are from `predict`, how fast they run, and what int8 loses."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.extract.harness import Figures, Goal, Numbers, Place
from benchmarks.extract.peaks import rate
from benchmarks.predict.runs import Run, command, fitted, workplace

BATCHES = (1, 3, 32)
WINDOW_S = 3.0
TOLERANCE = 1e-4
FORMS = {"fp32": (), "int8": ("--int8",)}


def exported(quick: bool) -> Figures:
    """Export each run as ONNX, in fp32 and in int8, and run both by onnxruntime."""
    rows, goals = [], []
    with workplace(quick) as place:
        for run in fitted(place):
            done = {form: _export(place, run, form) for form in FORMS}
            rows += [_row(run, form, done[form], 0.3 if quick else WINDOW_S) for form in FORMS]
            goals += _goals(run, done["fp32"])
    note = (
        "Compared with predict on the test images. images/s: onnxruntime with the threads that it takes by itself, on "
        "pixels that are decoded and cropped already. The accuracies and their difference, with its 95 % interval, are "
        "in percent."
    )
    return Figures(rows, note, goals)


def _export(place: Place, run: Run, form: str) -> Numbers:
    path = place.work / f"{run.network}-{form}.onnx"
    return command(["export", str(run.folder), "-o", str(path), "--data", str(run.images), "--json", *FORMS[form]])


def _row(run: Run, form: str, done: Numbers, window_s: float) -> Numbers:
    """Say of one program how fast it is, and of int8 what it loses."""
    session, paces = onnxruntime.InferenceSession(Path(done["path"]), providers=["CPUExecutionProvider"]), {}
    _, _, height, width = session.get_inputs()[0].shape
    pixels = np.random.default_rng(0).integers(0, 256, (max(BATCHES), 3, height, width), np.uint8)
    for n in BATCHES:
        paces[f"batch {n}, images/s"] = round(rate(partial(_answered, session, pixels[:n]), window_s), 1)
    found = {"network": run.network, "form": form, "MB": round(done["bytes"] / 1e6, 1), **paces}
    checked, int8 = done["checked"], done["int8"]
    compared = {"n": checked["n"], "labels that differ": checked["other_labels"], "gap": f"{checked['gap']:.1e}"}
    return found | (compared | {"accuracy": None, "lost": None} if int8 is None else _lost(int8))


def _answered(session: Any, pixels: np.ndarray) -> float:
    session.run(None, {"pixels": pixels})
    return len(pixels)


def _lost(int8: Numbers) -> Numbers:
    accuracy = int8["accuracy"]
    lost = {name: round(100 * accuracy["loss"][name], 1) for name in ("value", "low", "high")}
    return {
        "n": int8["n"],
        "labels that differ": int8["other_labels"],
        "gap": f"{int8['gap']:.1e}",
        "accuracy": f"{100 * accuracy['fp32']:.1f} -> {100 * accuracy['int8']:.1f}",
        "lost": lost,
    }


def _goals(run: Run, done: Numbers) -> list[Goal]:
    checked = done["checked"]
    said = f"{run.network}: the labels of predict, and its probabilities within {TOLERANCE:.0e}"
    measured = f"{checked['other_labels']} of {checked['n']} labels, {checked['gap']:.1e}"
    return [Goal(said, measured, checked["other_labels"] == 0 and checked["gap"] <= TOLERANCE)]
