"""The advice: which of the cases it is, what shows it, what was tried and what was left out, and what to do next."""

from typing import Any

from classify.plots import Layer, Point, Rung, curve_plot, depth_plot, ladder_plot
from classify.report.evidence import Evidence, Metrics, Row, Section, dig, is_measure
from classify.report.growth import as_curve
from classify.report.reproduce import command_line
from classify.report.text import (
    bullets,
    clipped,
    decimal,
    duration,
    folded,
    interval,
    measure_name,
    number,
    percent,
    printable,
    sentence,
    table,
)
from classify.terminal import became

CAPTION = (
    "Layer by layer: a linear classifier on each, with what the network learned before and with random weights; an "
    "earlier layer that is better means other images than it was made for. The learning curve: what more images would "
    "bring. The ladder: what each way to train gained over the best of those before it, in points, on training images "
    "that it was not trained on; what was not tried is grey, with what it was expected to gain. Lines are 95 % "
    "intervals."
)


def section(evidence: Evidence) -> Section | None:
    """Show the case, the evidence in one figure, and each rung with its reason and its cost."""
    found = evidence.get("advice")
    if not found:
        return None
    body = f"{_words(found)}{_figure(found)}{_layers(found)}{_ladder(found)}{_diagnostics(found)}{_notes(found)}"
    return Section("advice", "Which case is this, and what to do?", body)


def _words(found: Metrics) -> str:
    said = found.get("recommendation") or {}
    parts = said.get("parts") or {"words": said.get("words") or ""}
    return "".join(_paragraph(text) if about != "next" else _next(text, said) for about, text in parts.items())


def _next(text: str, said: Metrics) -> str:
    """Set the command apart from what is said of it."""
    about, _, _ = text.partition(": `")
    return f"<p>{sentence(about).rstrip('.')}:</p><pre><code>{printable(str(_typed(said.get('command'))))}</code></pre>"


def _paragraph(text: Any) -> str:
    return f"<p>{sentence(str(text))}</p>" if text else ""


def _typed(command: Any) -> str | None:
    """Write a command, text or words, as one types it."""
    return command if isinstance(command, str) else command_line({"command": command})


def _figure(found: Metrics) -> str:
    panels = "".join(draw(found) for draw in (_depth_panel, _curve_panel, _ladder_panel))
    return f'<figure class="panels">{panels}<figcaption>{CAPTION}</figcaption></figure>' if panels else ""


def _depth_panel(found: Metrics) -> str:
    profile = found.get("depth_profile") or {}
    layers = [
        Layer(_point(_name(tap), tap["pretrained"]), _point(_name(tap), tap["random"]), _is_peak(tap, profile))
        for tap in profile.get("taps") or []
        if is_measure(tap.get("pretrained")) and is_measure(tap.get("random"))
    ]
    name = measure_name(str(profile.get("metric") or "accuracy"))
    return depth_plot(layers, f"{name} layer by layer") if layers else ""


def _name(tap: Row) -> str:
    """Name a layer; how it was pooled stands in the table."""
    return str(tap["layer"]).partition(":")[0]


def _is_peak(tap: Row, profile: Metrics) -> bool:
    return tap["layer"] == profile.get("peak")


def _point(name: Any, found: Any) -> Point:
    return Point(str(name), found["value"], found["low"], found["high"])


def _curve_panel(found: Metrics) -> str:
    curve = as_curve(found["learning_curve"]) if found.get("learning_curve") else None
    if curve is None:
        return ""
    name = measure_name(str(found["learning_curve"].get("metric") or "accuracy"))
    return curve_plot(curve, f"{name} with more images", f"learning curve: {name} over the number of training images")


def _ladder_panel(found: Metrics) -> str:
    rungs = [_rung(row, found) for row in found.get("ladder") or []]
    return ladder_plot(rungs, "gain of each way to train, in points") if rungs else ""


def _rung(row: Row, found: Metrics) -> Rung:
    gain = _measured_gain(row) or _expected_gain(row)
    worth = percent(row["value"]["value"]) if is_measure(row.get("value")) else ""
    value = f"{gain['value'] * 100:+z.1f} points" if gain else worth
    taken = bool(_star(row, found))
    point = _point(row.get("rung"), gain) if gain else None
    return Rung(str(row.get("rung")), value, str(row.get("reason") or ""), point, bool(row.get("tried")), taken)


def _star(row: Row, found: Metrics) -> str:
    return " ★" if row.get("rung") == dig(found, "recommendation", "rung") else ""


def _measured_gain(row: Row) -> Any:
    return row["gain"] if is_measure(row.get("gain")) else None


def _expected_gain(row: Row) -> Any:
    predicted = row.get("predicted")
    return predicted | {"value": predicted["gain"]} if predicted and not row.get("tried") else None


def _layers(found: Metrics) -> str:
    profile = found.get("depth_profile") or {}
    rows = [
        (clipped(tap["layer"]) + (" ★" if _is_peak(tap, profile) else ""), number(tap.get("dims")),
         interval(tap.get("pretrained")), interval(tap.get("random")), _points(tap.get("gain")))
        for tap in profile.get("taps") or []
    ]  # fmt: skip
    head = ("layer", "numbers per image", "what was learned", "random weights", "gained by what was learned")
    caption = f"on {number(profile.get('n'))} images; ★ the earliest of the layers that are not clearly worse"
    return folded("layer by layer, as a table", table(head, rows, caption)) if rows else ""


def _points(gain: Any) -> str:
    if not is_measure(gain):
        return "-"
    value, low, high = (f"{gain[end] * 100:+z.1f}" for end in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _ladder(found: Metrics) -> str:
    rows = [
        (clipped(row.get("rung")) + _star(row, found), became(row), _expected(row), _points(row.get("gain")),
         interval(row.get("value")), _time(row))
        for row in found.get("ladder") or []
    ]  # fmt: skip
    if not rows:
        return ""
    head = ("strategy", "", "expected gain, chance", "gain", "worth, held out", "took")
    caption = "gains are in points, each over the best of those before it; in brackets 95 % intervals; ★ the advice"
    return table(head, rows, caption) + bullets(_why(row) for row in found["ladder"])


def _expected(row: Row) -> str:
    found = row.get("predicted")
    return f"{_points(found | {'value': found['gain']})}, {percent(found['p'])}" if found else "-"


def _time(row: Row) -> str:
    """Write what a rung took, or about what it would."""
    if row.get("seconds") is not None:
        return duration(row["seconds"])
    return "-" if row.get("projected_s") is None else f"about {duration(row['projected_s'])}"


def _why(row: Row) -> str:
    """Give the reason of a rung, and how it is asked for."""
    line = _typed(row.get("command"))
    typed = f" <code>{printable(line)}</code>" if line else ""
    return f"<strong>{clipped(row.get('rung'))}</strong>: {sentence(str(row.get('reason') or became(row)))}{typed}"


def _diagnostics(found: Metrics) -> str:
    """List what is measured too and decides nothing."""
    seen = found.get("diagnostics") or {}
    knn = seen.get("knn") or {}
    rows = [
        ("shift of BatchNorm's inputs, by layer", _shifts(seen.get("batch_norm_shift"))),
        ("LEEP", decimal(seen.get("leep"))),
        ("LogME", decimal(seen.get("logme"))),
        ("H-score, shrunk", decimal(seen.get("h_score"))),
        (f"images whose {number(knn.get('k'))} nearest agree with their label", interval(knn or None)),
    ]
    rows = [(name, value) for name, value in rows if value != "-"]
    notes = bullets(sentence(str(note)) for note in seen.get("notes") or [])
    if not rows and not notes:
        return ""
    return folded("measured too, and deciding nothing", (table(("", ""), rows) if rows else "") + notes)


def _shifts(rows: Any) -> str:
    """Write the first, the largest and the last: high at the start means other pixels, at the end other things."""
    if not rows:
        return "-"
    shown = {"first": rows[0], "largest": max(rows, key=lambda row: row["shift"]), "last": rows[-1]}
    return ", ".join(f"{name} {decimal(row['shift'])} ({clipped(row['layer'])})" for name, row in shown.items())


def _notes(found: Metrics) -> str:
    cost = duration(found["seconds"]) if found.get("seconds") is not None else None
    said = [f"All of this took {cost}."] if cost else []
    return bullets([*said, *(sentence(str(note)) for note in found.get("notes") or [])])
