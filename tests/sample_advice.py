"""Advice as it may come out: each of the cases, with what was measured of it and without."""

import math

import sample_report

from classify.advise.words import case_name, with_words

SECONDS = {"linear": 12.4, "taps": 33.0, "tail": 41.0, "lp-ft": 150.0, "full": 190.0, "scratch": 900.0}
PROFILES = {
    "similar": ((0.45, 0.62, 0.81, 0.913), (0.38, 0.42, 0.4, 0.35)),
    "different": ((0.45, 0.66, 0.831, 0.74), (0.38, 0.42, 0.4, 0.35)),
    "useless": ((0.381, 0.424, 0.39, 0.352), (0.38, 0.421, 0.4, 0.35)),
    "unclear": ((0.45, 0.62, 0.81, 0.812), (0.38, 0.42, 0.4, 0.35)),
}
"""What the layers are worth, shallow to deep: with the learned weights, and with random ones."""
LAYERS = ("layer1:grid:8", "layer2:grid:5", "layer3:grid:4", "layer4:grid:2")
HALF = {"similar": 0.012, "different": 0.015, "useless": 0.014, "unclear": 0.018}


def measure(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def profile(similarity: str) -> dict:
    learned, drawn = PROFILES[similarity]
    half = HALF[similarity]
    taps = [
        {"layer": layer, "dims": 4096, "pretrained": measure(a, 0.02), "random": measure(b, 0.021),
         "gain": measure(a - b, half)}
        for layer, a, b in zip(LAYERS, learned, drawn, strict=True)
    ]  # fmt: skip
    earlier = max(range(3), key=lambda at: learned[at])
    drop = measure(learned[earlier] - learned[-1], half) | {"layer": LAYERS[earlier]}
    peak = LAYERS[learned.index(max(learned))]
    where = max(range(4), key=lambda at: learned[at] - drawn[at])
    gain = measure(learned[where] - drawn[where], half) | {"layer": LAYERS[where]}
    return {"taps": taps, "drop": drop, "gain": gain, "peak": peak, "last": LAYERS[-1], "n": 400, "metric": "accuracy",
            "seconds": 21.5, "similarity": similarity, "words": "the profile in words"}  # fmt: skip


def curve(limited: str) -> dict:
    return sample_report.curve() | {"metric": "accuracy", "verdict": limited, "limited": limited}


def row(rung: str, **said) -> dict:
    """A rung: one that was likely to gain nothing, where nothing else is said."""
    rung_of = {"rung": rung, "tried": False, "accepted": False, "reason": "a gain of over 1 point has a chance of 9 %"}
    cost = {"projected_s": 3 * SECONDS[rung], "seconds": None, "value": None, "gain": None, "settings": None}
    cost |= {"why": "unlikely", "measurement": None, "over": None, "n": None}
    predicted = {"gain": 0.004, "low": 0.0, "high": 0.035, "p": 0.093}
    command = ["offshelf", "fit", "flowers", "--strategy", rung]
    return rung_of | {"predicted": predicted} | cost | {"command": command} | said


def linear() -> dict:
    return row("linear", tried=True, accepted=True, reason="the linear probe, the best on layer4", predicted=None,
               projected_s=None, why=None, seconds=SECONDS["linear"], value=measure(0.913, 0.02), n=1600,
               settings={"layers": ["layer4:grid:2"], "head": "ridge"})  # fmt: skip


def tried(rung: str, gain: float, half: float, accepted: bool) -> dict:
    said = "the lower bound of its gain is above 0" if accepted else "its gain may be chance"
    return row(rung, tried=True, accepted=accepted, reason=said, seconds=SECONDS[rung],
               predicted={"gain": 0.03, "low": 0.0, "high": 0.087, "p": 0.611}, projected_s=1.2 * SECONDS[rung],
               value=measure(0.913 + gain, 0.019), gain=measure(gain, half), settings={"rate": 1e-3}, why=None,
               over="linear", n=320)  # fmt: skip


def ladder(strategy: str) -> list[dict]:
    """What was tried on the way to a strategy: what lies below it was tried, what lies above it did not pay."""
    rungs = list(SECONDS)
    below, above = rungs[1 : max(1, rungs.index(strategy))], rungs[rungs.index(strategy) + 1 :]
    here = [] if strategy == "linear" else [tried(strategy, 0.031, 0.014, accepted=True)]
    return [linear(), *(tried(rung, 0.004, 0.01, accepted=False) for rung in below), *here,
            *map(row, above)]  # fmt: skip


def held_back(rung: str) -> dict:
    """A rung that would likely gain, and that took too long."""
    return row(rung, why="time", reason="it would take about 1500 s; 480 s are left", projected_s=1500.0,
               predicted={"gain": 0.061, "low": 0.004, "high": 0.121, "p": 0.82})  # fmt: skip


def wanted(rung: str) -> dict:
    """A rung that `advise` would have tried, and leaves to `fit`."""
    return row(rung, why="left to fit", reason="it may well pay: fit would try it", projected_s=240.0,
               predicted={"gain": 0.061, "low": 0.004, "high": 0.121, "p": 0.82})  # fmt: skip


def trial() -> dict:
    """The cheapest rung after a short training that was to say what the others may bring."""
    found = {"gain": measure(-0.004, 0.012), "n": 320, "seconds": 31.0, "settings": {"rate": 1e-3}}
    return row("tail", measurement=found)


def diagnostics() -> dict:
    shifts = [{"layer": f"layer{1 + at // 2}.{at % 2}.bn1", "shift": 0.2 + 0.11 * at} for at in range(8)]
    return {"batch_norm_shift": shifts, "leep": -1.234, "logme": 0.417, "h_score": 7.31,
            "knn": {"k": 20} | measure(0.871, 0.017), "notes": []}  # fmt: skip


def advice(similarity: str = "similar", size: str = "small", strategy: str = "linear", **changed) -> dict:
    """The JSON of an advice, before its words are put in."""
    case = {"similarity": similarity, "size": size, "name": case_name(similarity, size), "n_train": 1600,
            "n_per_class": 155.5, "words": None}  # fmt: skip
    named = "linear" if strategy == "taps" else strategy
    command = ["offshelf", "fit", "flowers", "--strategy", named]
    return {
        "case": case,
        "depth_profile": profile(similarity),
        "learning_curve": curve("data-limited" if size == "small" else "saturated"),
        "ladder": ladder(strategy),
        "recommendation": {"strategy": named, "rung": strategy, "command": command},
        "diagnostics": diagnostics(),
        "budget_s": 600.0,
        "min_gain": 0.01,
        "seconds": 84.1,
        "notes": [],
    } | changed  # fmt: skip


def without_end(name: str) -> dict:
    """An advice in which every name is as long as the given one."""
    found = with_words(advice("different"))
    layers = [tap | {"layer": name} for tap in found["depth_profile"]["taps"]]
    found["depth_profile"] |= {"taps": layers, "last": name, "drop": found["depth_profile"]["drop"] | {"layer": name}}
    found["ladder"] = [row | {"reason": name, "command": ["offshelf", name]} for row in found["ladder"]]
    found["diagnostics"] |= {"batch_norm_shift": [{"layer": name, "shift": 0.1}], "notes": [name]}
    return with_words(found | {"notes": [name]})


def numbers(found: object) -> list[float]:
    """Every number of an advice, those within its texts included as they stand."""
    if isinstance(found, dict):
        return [number for value in found.values() for number in numbers(value)]
    if isinstance(found, list | tuple):
        return [number for value in found for number in numbers(value)]
    isnumber = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    return [float(found)] if isnumber else []
