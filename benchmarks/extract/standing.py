"""What rounds sum up to: medians, ratios within a round, start-up, and the share of the limit."""

from collections.abc import Mapping, Sequence

from benchmarks.extract.harness import Goal, Numbers, middle, ratios, spread
from benchmarks.extract.limit import flops, highest, limits

NAIVE = "naive"
PRECISIONS = ("fp32", "bf16")


def bounds_of(network: str, rounds: Sequence[Numbers]) -> Numbers:
    """Return the limits by precision, and under `facts` what they come from."""
    peaks = highest([{name: value for name, value in each.items() if name not in OUTSIDE} for each in rounds])
    bounds = {precision: limits(network, peaks, precision) for precision in PRECISIONS}
    facts = {"gflop_per_image": round(flops(network) / 1e9, 3), "peaks_per_core": _rounded(peaks)}
    facts |= {"limits": {precision: _rounded(bounds[precision]) for precision in PRECISIONS}}
    return bounds | {"facts": facts | {"foreign_cores": spread([each["foreign_cores"] for each in rounds])}}


OUTSIDE = ("whole_s", "foreign_cores")


def _rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in numbers.items()}


def standing(who: str, runs: Mapping[str, Sequence[Numbers]], bounds: Mapping[str, float] | None) -> Numbers:
    """Sum up the rounds of one runner; `ratio` and `whole_ratio` are to the naive script of the same round."""
    mine, naive = runs[who], runs[NAIVE]
    row: Numbers = {"who": who, "images": mine[0]["images"], "runs": list(mine)}
    if failed := [run["error"] for run in [*mine, *naive] if "error" in run]:
        return row | {"error": failed[0]}
    rates, whole = _each(mine, "images_per_s"), _each(mine, "whole_s")
    row |= {"images_per_s": spread(rates, 1), "ratio": ratios(rates, _each(naive, "images_per_s"))}
    row |= {"whole_s": spread(whole, 1), "start_s": round(_start_s(mine), 1)}
    if mine[0]["images"] == naive[0]["images"]:
        row["whole_ratio"] = ratios(_each(naive, "whole_s"), whole)
    if bounds:
        row |= {"of_limit": round(middle(rates) / bounds["limit"], 3)}
        row |= {"of_limit_with_resize": round(middle(rates) / bounds["with_resize"], 3)}
    return row | {"foreign_cores": spread(_each(mine, "foreign_cores"), 2)}


def _each(runs: Sequence[Numbers], name: str) -> list[float]:
    return [run[name] for run in runs]


def _start_s(runs: Sequence[Numbers]) -> float:
    """Return what a process took beside its images at the steady rate."""
    return middle([run["whole_s"] - run["images"] / run["images_per_s"] for run in runs])


def reached(goal: str, rows: Mapping[str, Numbers], names: Sequence[str], figure: str, least: float) -> Goal:
    """Compare the highest of a figure among some rows with the least that it is to be; says all of them."""
    found = {name: _value(rows[name][figure]) for name in names if figure in rows[name]}
    said = ", ".join(f"{name} {_shown(figure, value)}" for name, value in found.items())
    return Goal(goal, said or "not measured", max(found.values()) >= least if found else None)


def _value(figure: Numbers | float) -> float:
    return figure["value"] if isinstance(figure, dict) else figure


def _shown(figure: str, value: float) -> str:
    return f"{value:.0%}" if figure == "of_limit" else f"{value:.2f}x"
