"""`predict` beside `extract` on the same photos: both by the same loader and network, so at the same speed."""

import json
import shutil
import sys
from pathlib import Path

from benchmarks.extract.harness import (
    Figures,
    Goal,
    Numbers,
    Place,
    at_least,
    middle,
    ratios,
    spread,
    timed,
    undisturbed,
)
from benchmarks.extract.photos import small
from benchmarks.predict.runs import Run, fitted, workplace

N, ROUNDS = 1000, 3
PACE = 0.95
EXTRACT, PREDICT, CACHED = "extract", "predict", "predict --cache"


def speed(quick: bool) -> Figures:
    """Time both in interleaved rounds, each in a process of its own; then predict from what was extracted."""
    rows, goals = [], []
    with workplace(quick) as place:
        photos = small(place, place.share(N))
        for run in fitted(place):
            rounds = [_round(place, run, photos) for _ in range(place.rounds(ROUNDS))]
            rows.append(_row(run, rounds))
            foreign = [done["foreign_cores"] for each in rounds for done in each.values()]
            goals += [*undisturbed([_pace(run, rounds)], foreign), _reuse(run, rounds[0][CACHED])]
    note = (
        "JPEGs of 500 x 375; images/s from the first image asked for to the last row or answer, start-up apart; MiB is "
        "the peak of the process that computes, without those that decode. From a cache, files are read for their "
        "digest, and nothing is decoded."
    )
    return Figures(rows, note, goals)


def _round(place: Place, run: Run, photos: Path) -> dict[str, Numbers]:
    cache = place.work / "round"
    known = {"data": str(photos), "run": str(run.folder), "network": run.network, "weights": str(run.weights)}
    ways = {EXTRACT: ("extract", str(cache)), PREDICT: ("predict", None), CACHED: ("predict", str(cache))}
    found = {}
    for name, (way, where) in ways.items():
        said = json.dumps({**known, "way": way, "cache": where})
        found[name] = timed([sys.executable, "-m", "benchmarks.predict.pace", said])
    shutil.rmtree(cache)
    return found


def _row(run: Run, rounds: list[dict[str, Numbers]]) -> Numbers:
    paces = {f"{way}, images/s": spread([each[way]["images_per_s"] for each in rounds], 1) for way in rounds[0]}
    peaks = {f"{way}, MiB": round(middle([each[way]["peak_mib"] for each in rounds])) for way in (EXTRACT, PREDICT)}
    return {"network": run.network, "photos": rounds[0][PREDICT]["n"], **paces, **peaks}


def _pace(run: Run, rounds: list[dict[str, Numbers]]) -> Goal:
    paces = {way: [each[way]["images_per_s"] for each in rounds] for way in rounds[0]}
    pace = ratios(paces[PREDICT], paces[EXTRACT])["value"]
    return at_least(f"{run.network}: predict >= {PACE:g}x of extract", pace, PACE)


def _reuse(run: Run, done: Numbers) -> Goal:
    """Hear from a prediction how many images a cache had."""
    said, _, _ = "; ".join(done["said"]).partition(" have their features")
    return Goal(
        f"{run.network}: no image of a cache is computed again", said, said == f"{done['n']:,} of {done['n']:,} images"
    )
