"""What to do next, drawn from what was found: the most pressing first."""

from collections.abc import Callable

from classify.report.classes import weakest
from classify.report.evidence import Evidence, is_measure, leading
from classify.report.growth import verdict_of, with_twice
from classify.report.text import clipped, interval, percent, plural

MAX_STEPS = 5
_GROWTH = '<a href="#more-images">'
WEAK = 0.1
"""How far below the accuracy the weakest class must lie to be named."""


def next_steps(evidence: Evidence) -> list[str]:
    """Return lines of HTML, at most MAX_STEPS."""
    said = [line for rule in RULES if (line := rule(evidence))]
    return said[:MAX_STEPS]


def _useless(evidence: Evidence) -> str:
    found, baseline = evidence.get("test", "accuracy"), evidence.get("baseline")
    if not is_measure(found) or baseline is None or found["low"] > baseline:
        return ""
    return "<strong>Do not use it yet</strong>: it may be no better than always giving one class."


def _crossing(evidence: Evidence) -> str:
    n = evidence.get("hygiene", "duplicates", "n_leaked") or evidence.get("hygiene", "duplicates", "n_cross_split")
    if not n:
        return ""
    name = leading(evidence) or "accuracy"
    without = evidence.get("hygiene", "duplicates", "without_cross_split", name)
    reads = f"; without them it reads {interval(without)}" if is_measure(without) else ""
    images = plural(n, "test image has a twin", "test images have a twin")
    return f'<a href="#data">{images} in training</a>: the test is too kind{reads}. Part them and fit again.'


def _labels(evidence: Evidence) -> str:
    n = evidence.get("hygiene", "label_issues", "n")
    return f'Look at the <a href="#data">{plural(n, "suspect label")}</a>, correct them, and fit again.' if n else ""


def _conflicts(evidence: Evidence) -> str:
    n = evidence.get("hygiene", "conflicts", "n")
    return f'Settle <a href="#data">{plural(n, "pair")} of equal images with two labels</a>.' if n else ""


def _more(evidence: Evidence) -> str:
    found = evidence.get("learning_curve")
    then = with_twice(found)
    if then is None or evidence.get("probe"):  # of a network that was trained it says nothing
        return ""
    told = {
        "data-limited": f"{_GROWTH}Collect more images</a>: twice as many would bring about {percent(then.value)}.",
        "saturated": f"More images of the same kind {_GROWTH}bring little</a>: try another network or layer.",
    }
    return told.get(verdict_of(found), "")


def _weakest(evidence: Evidence) -> str:
    row, overall = weakest(evidence.get("per_class") or []), evidence.get("test", "accuracy", "value")
    if row is None or overall is None or overall - row["recall"] < WEAK:
        return ""
    found = percent(row["recall"])
    return f'The weakest class is <a href="#classes">{clipped(row["class"])}</a>: only {found} of it is found.'


def _worse(evidence: Evidence) -> str:
    found = evidence.get("gain", "test", str(evidence.get("metric") or "accuracy"))
    if not is_measure(found) or found["low"] > 0:
        return ""
    said = "is worse than" if found["high"] < 0 else "may be no better than"
    return (
        f'The trained network <a href="#finetuning">{said} the linear probe</a>: fit without <code>--strategy</code>.'
    )


def _use(evidence: Evidence) -> str:
    run = evidence.get("run")
    if not run or evidence.get("protocol", "kept") is False:
        return ""
    return f"To use it: <code>offshelf predict {clipped(run)} IMAGES</code>"


RULES: tuple[Callable[[Evidence], str], ...] = (_useless, _worse, _crossing, _labels, _conflicts, _weakest, _more, _use)
