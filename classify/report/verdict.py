"""The verdict in words: what was found, how sure it is, against what, and what to do next."""

from collections.abc import Callable
from typing import Any

from classify.plots import Point, dot_plot
from classify.report.evidence import Evidence, Metrics, dig, is_measure, leading
from classify.report.finetuning import gained
from classify.report.steps import next_steps
from classify.report.text import (
    beside,
    bullets,
    clipped,
    interval,
    layers,
    measure_name,
    number,
    params,
    percent,
    plural,
    printable,
    sentence,
    transform,
)

HEADLINES = {"accuracy": "right", "balanced_accuracy": "right, class by class"}


def verdict(evidence: Evidence) -> str:
    """Write what stands above everything else."""
    name = leading(evidence)
    features = str(evidence.get("features"))
    return (
        f'<header><p class="eyebrow">{clipped(features)}</p><h1>{_headline(evidence, name)}</h1></header>'
        f'<p class="verdict">{_found(evidence, name)} {_against(evidence, name)} {gained(evidence)}</p>'
        f"{_warnings(evidence)}{_next(evidence)}{_facts(evidence)}{_how_sure(evidence, name)}"
        f"<p>{_split(evidence)}</p>"
    )


def _measured(evidence: Evidence, name: str | None) -> tuple[Any, bool]:
    """Return the leading measure and whether it is of the test images; of cross-validation where there are none."""
    on_test = evidence.get("test", name or "")
    return (on_test, True) if is_measure(on_test) else (evidence.get("cv", name or ""), False)


def _headline(evidence: Evidence, name: str | None) -> str:
    title = clipped(str(evidence.get("features")).partition("/")[0])
    if name is None:
        return f"{title}: nothing was measured"
    return f"{title}: {percent(_measured(evidence, name)[0]['value'])} {HEADLINES.get(name) or measure_name(name)}"


def _found(evidence: Evidence, name: str | None) -> str:
    if name is None:
        return "This run holds no measure."
    found, on_test = _measured(evidence, name)
    images = (
        f"Of {number(evidence.get('n_test'))} test images that it had not seen" if on_test else "In cross-validation"
    )
    write = FOUND.get(name, _found_other)
    value = f"<strong>{percent(found['value'])}</strong>"
    return (
        f"{images}, {write(evidence, name, value)}; with 95 % confidence the "
        f"true value lies between {percent(found['low'])} and {percent(found['high'])}."
    )


def _found_accuracy(evidence: Evidence, name: str, value: str) -> str:
    return f"the classifier names {value} right"


def _found_balanced(evidence: Evidence, name: str, value: str) -> str:
    ratio = evidence.get("imbalance", "ratio")
    uneven = f", since the largest class has {ratio:.1f} times the images of the smallest" if ratio else ""
    plain = evidence.get("test", "accuracy", "value")
    beside_it = f" (of all images together {percent(plain)})" if plain is not None else ""
    return f"it names {value} of a class right on average over the classes{beside_it}{uneven}"


def _found_other(evidence: Evidence, name: str, value: str) -> str:
    return f"the {measure_name(name)} is {value}"


FOUND: dict[str, Callable[[Evidence, str, str], str]] = {
    "accuracy": _found_accuracy,
    "balanced_accuracy": _found_balanced,
}


def _against(evidence: Evidence, name: str | None) -> str:
    """Compare with always giving the commonest class; its balanced accuracy is one over the number of classes."""
    if name == "map" and evidence.get("baseline") is not None:
        return f"A ranking by chance would reach {percent(evidence.get('baseline'))}."
    n_classes = len(evidence.get("classes") or [])
    baseline = 1 / n_classes if name == "balanced_accuracy" and n_classes else evidence.get("baseline")
    found, _ = _measured(evidence, name)
    if baseline is None or not is_measure(found) or name not in FOUND:
        return ""
    beats = "clearly better than" if found["low"] > baseline else "<strong>not clearly better</strong> than"
    return f"That is {beats} always giving the class that is commonest in training ({percent(baseline)})."


def _warnings(evidence: Evidence) -> str:
    said = [printable(str(text)) for text in evidence.get("warnings") or []]
    return f'<div class="warn" role="note"><p><strong>Mind</strong></p>{bullets(said)}</div>' if said else ""


def _next(evidence: Evidence) -> str:
    steps = next_steps(evidence)
    return f'<div class="next"><h2>What to do next</h2>{bullets(steps, "ol")}</div>' if steps else ""


def _facts(evidence: Evidence) -> str:
    m = evidence.metrics
    facts = {
        "layer": f"<code>{layers(m)}</code>",
        "features": transform(m),
        "head": f"{clipped(m.get('head') or '-')}, {params(m.get('params'))}{_weighted(m)}",
        "classes": number(len(m.get("classes") or [])),
        "training images": number(m.get("n_train")),
        "test images": number(m.get("n_test")),
    }
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items() if value != "-")
    return f'<dl class="facts">{rows}</dl>'


def _weighted(m: Metrics) -> str:
    return f", {clipped(m['class_weight'])} class weights" if m.get("class_weight") else ""


def _how_sure(evidence: Evidence, name: str | None) -> str:
    """Show the test beside cross-validation, as it reads and corrected for having been chosen."""
    rows = _estimates(evidence, name)
    words = "".join(f"<p>{line}</p>" for line in (_chosen(evidence), _grouped(evidence)) if line)
    if len(rows) < 2:
        return words
    points = [Point(said, found["value"], found["low"], found["high"]) for said, found in rows]
    return "<h2>How sure is that?</h2>" + beside(dot_plot(points, f"{measure_name(name or '')}: the estimates"), words)


def _estimates(evidence: Evidence, name: str | None) -> list[tuple[str, Any]]:
    same = evidence.get("selection", "metric") == name
    found = {
        "test images": evidence.get("test", name or ""),
        "cross-validation, corrected": evidence.get("selection", "corrected") if same else None,
        _held_out(evidence): evidence.get("cv", name or ""),
    }
    return [(said, measured) for said, measured in found.items() if is_measure(measured)]


def _held_out(evidence: Evidence) -> str:
    """Name what is neither the test nor what was fitted on; of a trained network that is a fold, or less."""
    by = evidence.get("calibration", "calibrated_on")
    return f"training images, {clipped(by)}" if by else "cross-validation, as it reads"


def _chosen(evidence: Evidence) -> str:
    """Say in plain words what choosing the best of many does to its score."""
    found = evidence.get("selection")
    naive, corrected = dig(found, "naive"), dig(found, "corrected")
    if not is_measure(naive) or not is_measure(corrected):
        return ""
    return (
        f"It was chosen among {number(found.get('n_configurations'))} configurations, and the best of many is partly "
        f"lucky. In cross-validation its {measure_name(str(found.get('metric')))} reads {percent(naive['value'])}; "
        f"corrected for having been chosen it is <strong>{interval(corrected)}</strong>."
    )


def _grouped(evidence: Evidence) -> str:
    found = evidence.get("grouping")
    if not found:
        return ""
    if found.get("words"):
        return f"What grouping changes: {sentence(str(found['words']))}"
    if not is_measure(found.get("ungrouped")) or not is_measure(found.get("grouped")):
        return ""
    return (
        f"With its groups torn apart, cross-validation would read {percent(found['ungrouped']['value'])}; kept "
        f"together it reads <strong>{percent(found['grouped']['value'])}</strong>."
    )


def _split(evidence: Evidence) -> str:
    said = f"How it was split: {printable(str(evidence.get('split')))}. " if evidence.get("split") else ""
    bad, unlabelled = evidence.get("n_bad") or 0, evidence.get("n_unlabelled") or 0
    counts = ((bad, "could not be read"), (unlabelled, "without a label"))
    left_out = " and ".join(f"{plural(n, 'image')} {why}" for n, why in counts if n)
    return f"{said}Left out: {left_out}." if left_out else said
