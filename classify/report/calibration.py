"""Are its probabilities honest, what do its answer sets hold, when does it decline, and what does it not know."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from classify.plots import Bin, coverage_plot, reliability_plot
from classify.report.evidence import Evidence, Metrics, Row, Section, dig
from classify.report.text import beside, bullets, decimal, number, percent, plural, share, table

N_BINS = 10
MEASURES = {
    "nll": "log-loss",
    "ece": "calibration error",
    "classwise_ece": "calibration error by class",
    "brier": "Brier score",
}
PARTS = {"out_of_fold": "out of fold", "test": "test"}
CERTAIN = 0.02
"""A calibration error below which a probability may be read as it stands."""


def section(evidence: Evidence) -> Section | None:
    """Show what the probabilities are worth."""
    found = evidence.get("calibration")
    if not found:
        return None
    body = _honest(evidence, found) + _before_after(found) + bullets(_promises(found)) + _declining(found)
    return Section("probabilities", "Are its probabilities honest?", body) if body else None


def _honest(evidence: Evidence, found: Metrics) -> str:
    before = _bins(dig(found, "test", "reliability_before"))
    after = _bins(dig(found, "test", "reliability_after")) or bins_of(evidence.predictions)
    words = _in_words(found)
    if not after:
        return words
    label = "reliability diagram: share of answers that is right over the probability given, test images"
    note = (
        '<p class="soft">On the dashed diagonal a probability means what it says; below it, it promises too much.</p>'
    )
    return beside(reliability_plot(before, after, label), words + note)


def _in_words(found: Metrics) -> str:
    off = dig(found, "test", "ece_after")
    if off is None:
        return ""
    read = "take them as they stand" if off < CERTAIN else "allow for that"
    return (
        f"<p>On the test images its probabilities are off by <strong>{percent(off)}</strong> on average "
        f"(expected calibration error; {percent(dig(found, 'test', 'ece_before'))} before): {read}. "
        f"The scores are divided by {_temperature(found)}, fitted on answers out of fold.</p>"
    )


def _temperature(found: Metrics) -> str:
    own = "a temperature for each class" if found.get("temperatures") else ""
    return own or f"a temperature of {decimal(found.get('temperature'))}"


def _bins(rows: Any) -> list[Bin]:
    return [Bin(row["confidence"], row["accuracy"], row["count"]) for row in rows or []]


def bins_of(predictions: Any) -> list[Bin]:
    """Sort the test answers by probability and cut them into bins of equal mass, least sure first."""
    known = [row for row in predictions if row.get("probability") not in (None, "")]
    ordered = sorted(known, key=lambda row: float(row["probability"]))
    n = min(N_BINS, len(ordered))
    cuts = [len(ordered) * at // n for at in range(n + 1)] if n else []
    return [_bin(ordered[start:stop]) for start, stop in pairwise(cuts)]


def _bin(rows: list[Row]) -> Bin:
    sure = sum(float(row["probability"]) for row in rows) / len(rows)
    return Bin(sure, sum(row["label"] == row["predicted"] for row in rows) / len(rows), len(rows))


def _before_after(found: Metrics) -> str:
    sides = [(part, side) for part in PARTS if found.get(part) for side in ("before", "after")]
    rows = [
        [words, *(decimal(found[part].get(f"{name}_{side}")) for part, side in sides)]
        for name, words in MEASURES.items()
        if any(f"{name}_{side}" in found[part] for part, side in sides)
    ]
    head = ["lower is better", *(f"{PARTS[part]}, {side}" for part, side in sides)]
    return table(head, rows, "before and after calibration") if rows else ""


def _promises(found: Metrics) -> list[str]:
    makers = {"conformal": _sets, "abstain": _abstain, "open_set": _open_set}
    return [make(found[name]) for name, make in makers.items() if isinstance(found.get(name), Mapping)]


def _sets(found: Metrics) -> str:
    each = ", each class by a threshold of its own" if found.get("class_conditional") else ""
    missed = dig(found, "coverage", "high")
    less = missed is not None and missed < 1 - found["alpha"]
    kept = (
        " <strong>That is less than promised</strong>: the test images differ from the training ones." if less else ""
    )
    return (
        f"<strong>Sets of answers</strong> that shall hold the truth {percent(1 - found['alpha'])} of the time{each}: "
        f"on the test images they hold it {share(found.get('coverage'))} of the time, "
        f"with {decimal(found.get('mean_size'))} classes on average.{kept}"
    )


def _abstain(found: Metrics) -> str:
    by = f" {found['by']}" if found.get("by") in ("accuracy", "coverage") else ""
    asked = f" (asked for: {percent(found['asked'])}{by})" if found.get("asked") is not None else ""
    held = found.get("test") or found
    return (
        f"<strong>Declining to answer</strong> below a probability of {percent(found.get('threshold'))}{asked}: "
        f"it answers {share(held.get('coverage'))} of the images, and {share(held.get('accuracy_of_answered'))} of "
        "these answers are right."
    )


def _open_set(found: Metrics) -> str:
    return (
        f"<strong>Images unlike anything seen</strong> are those farther than {decimal(found.get('threshold'))} from "
        f"their {number(found.get('k'))}th nearest of {plural(int(found.get('n_reference') or 0), 'training image')}: "
        f"{percent(1 - float(found.get('quantile') or 1))} of the training images themselves are that far."
    )


def _declining(found: Metrics) -> str:
    curve = found.get("risk_coverage")
    if not curve or not curve.get("coverage"):
        return ""
    points = [(answered, 1 - risk) for answered, risk in zip(curve["coverage"], curve["risk"], strict=True)]
    words = (
        "<p>If it answers only where it is surest, more of its answers are right: read from the right end, where it "
        f'answers everything, to the left.</p><p class="soft">Mean error over all such shares: '
        f"{percent(curve.get('aurc'))}.</p>"
    )
    label = "share of answers that is right over the share of images answered, test images"
    return f"<h3>What declining to answer brings</h3>{beside(coverage_plot(points, label), words)}"
