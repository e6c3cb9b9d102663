"""Fine-tuning: what it gained over the probe, how it went, what was tried, and the proof of what stayed frozen."""

from typing import Any

from classify.plots import Look, Point, descent_plot, gain_plot
from classify.report.evidence import Evidence, Metrics, Section, dig, is_measure
from classify.report.text import (
    beside,
    clipped,
    decimal,
    folded,
    interval,
    layers,
    measure_name,
    number,
    percent,
    plural,
    sentence,
    table,
)

SMALL = 0.01
"""A gain that is hardly worth a training, however sure: one image in a hundred."""

WORDS = {
    "tail": "the layers above {until} were trained on, the maps below them cached",
    "lp-ft": "the head began as the linear probe's, and then everything{above} was trained",
    "full": "everything{above} was trained, with a new head",
    "scratch": "the network was trained from fresh weights",
}
UNTRAINED = (
    "<strong>no step of the training lowered the loss</strong>, and the difference is one of heads: the probe's on the "
    "layers that it chose, and one on the layer that the network ends with"
)
SIDES = {"out_of_fold": "images held out of training", "test": "test images"}


def section(evidence: Evidence) -> Section | None:
    """Show whether the training was worth it, and how it went."""
    found = evidence.get("finetune")
    if not found:
        return None
    body = (
        f"<p>{gained(evidence)}</p>{_gains(evidence)}{_beside_the_probe(evidence)}<h3>How it went</h3>{_course(found)}"
        f"{_tried(found)}{_trainings(found)}<h3>What stayed frozen</h3>{_frozen(found)}{_mirror(found)}"
    )
    return Section("finetuning", "Was fine-tuning worth it?", body)


def gained(evidence: Evidence) -> str:
    """Say in a sentence what training the network gained over the probe; nothing for a run without a training."""
    name = str(evidence.get("metric") or "accuracy")
    found = evidence.get("gain", "test", name)
    if not is_measure(found):
        return ""
    far, side = abs(found["value"]) * 100, "below" if found["value"] < 0 else "above"
    head = f"On the same test images its {measure_name(name)} is {far:.1f} points {side} the linear probe's"
    worth = UNTRAINED if _untrained(evidence) else _worth(found)
    return f"{head} (95 % interval {found['low'] * 100:+z.1f} to {found['high'] * 100:+z.1f}): {worth}."


def _untrained(evidence: Evidence) -> bool:
    """Say whether the weights are those that the training began with."""
    trainings = evidence.get("finetune", "trainings") or []
    return any(each.get("deployed") and each.get("best_step") == 0 for each in trainings)


def _worth(found: Any) -> str:
    if found["high"] < 0:
        return "<strong>training the network made it worse</strong>, and the probe is the better classifier"
    if found["low"] <= 0:
        return "<strong>that may be chance</strong>, and the probe is cheaper"
    return "<strong>clearly better</strong>" + (", though by little" if found["value"] < SMALL else ", and worth it")


def _gains(evidence: Evidence) -> str:
    name = str(evidence.get("metric") or "accuracy")
    sides = {side: evidence.get("gain", side) for side in SIDES}
    points = [
        Point(f"{number(found.get('n'))} {SIDES[side]}", *(found[name][end] for end in ("value", "low", "high")))
        for side, found in sides.items()
        if is_measure(dig(found, name))
    ]
    if not points:
        return ""
    said = (
        "<p>Each line compares both on the very same images, group by group where there are groups, with a 95 % "
        "interval (paired bootstrap). Right of zero the trained network is better.</p>"
    )
    return beside(gain_plot(points, f"gain over the probe, in points of {measure_name(name)}"), said)


def _beside_the_probe(evidence: Evidence) -> str:
    """Put the two side by side: what they are worth, and what they cost."""
    probe, found = evidence.get("probe") or {}, evidence.get("finetune")
    metric = str(evidence.get("metric") or "accuracy")
    spent = sum(row.get("seconds") or 0 for row in found.get("trainings") or [])
    searched = sum(row.get("seconds") or 0 for row in found.get("search") or [] if not row.get("chosen"))
    rows = [
        ("linear probe", layers(probe), interval(dig(probe, "cv", metric)), interval(dig(probe, "test", metric)),
         plural(dig(probe, "selection", "n_configurations") or 0, "configuration"), decimal(probe.get("seconds"))),
        (clipped(found.get("strategy")), layers(evidence.metrics), interval(evidence.get("cv", metric)),
         interval(evidence.get("test", metric)), plural(len(found.get("search") or []), "setting"),
         decimal(spent + searched)),
    ]  # fmt: skip
    name = measure_name(metric)
    return table(("", "head on", f"{name}, out of fold", f"{name}, test", "tried", "seconds"), rows)


def _course(found: Metrics) -> str:
    looks = [
        Look(row["step"], row["val_loss"], row.get("loss"))
        for row in found.get("history") or []
        if isinstance(row.get("val_loss"), int | float)
    ]
    last = _last(found)
    if not looks or last is None:
        return ""
    words = (
        f"<p>{sentence(_what(found))}</p><p>Dots are looks at the {number(last.get('n_val'))} images of the validation "
        f"part, which is part of the training images and not of the test; the dashed line is the loss of the batches "
        f"that were trained on. {_kept(found, last)}</p>"
    )
    chart = descent_plot(looks, int(last.get("best_step") or 0), "loss over the steps of the last training")
    return beside(chart, words + _seeds(found))


def _kept(found: Metrics, last: Metrics) -> str:
    """Say which weights the network ended up with: those of step 0 are not trained, and no gain is of the training."""
    if last.get("best_step") == 0:
        return "<strong>No step lowered the loss</strong>: kept are the weights that it began with, the lowest dot."
    step, share = number(last.get("best_step")), last.get("share_of_end")
    weights = f"The weights of step {step}" + (", averaged over the steps before," if dig(found, "plan", "ema") else "")
    if share is None:
        return f"{weights} were kept, the lowest dot."
    return (
        f"{weights} are the lowest dot, and kept is a mixture: {percent(share)} of them, the rest those of the start."
    )


def _last(found: Metrics) -> Metrics | None:
    """Return the training that was deployed: the first of those on all images."""
    rows = found.get("trainings") or []
    return next((row for row in rows if row.get("deployed")), None)


def _what(found: Metrics) -> str:
    until = found.get("kept_until")
    said = WORDS.get(str(found.get("strategy")), "the network was trained")
    return said.format(until=until, above=f" above {until}" if until else "")


def _seeds(found: Metrics) -> str:
    seeds = found.get("seeds") or {}
    values = seeds.get("values") or []
    if len(values) < 2:
        return ""
    each = ", ".join(percent(value) for value in values)
    return (
        f"<p>The last training was done {len(values)} times, with other seeds: the test {_name(seeds)} was {each}, on "
        f"average {percent(seeds.get('mean'))} with a standard deviation of {percent(seeds.get('sd'))}. The first is "
        "kept, not the best.</p>"
    )


def _name(seeds: Metrics) -> str:
    return measure_name(str(seeds.get("metric") or "accuracy"))


def _tried(found: Metrics) -> str:
    rows = [
        (number(row.get("rate")) + (" ★" if row.get("chosen") else ""), number(row.get("weight_decay")),
         number(row.get("steps")), "diverged" if row.get("diverged") else number(row.get("loss")),
         percent(row.get("accuracy")), number(row.get("seconds")))
        for row in found.get("search") or []
    ]  # fmt: skip
    if not rows:
        return ""
    head = ("rate", "weight decay", "steps", "validation loss", "validation accuracy", "seconds")
    caption = "by successive halving: those that were worse were stopped early"
    return folded(f"{plural(len(rows), 'setting')} tried", table(head, rows, caption))


def _trainings(found: Metrics) -> str:
    rows = [
        (clipped(row.get("name")) + (" ★" if row.get("deployed") else ""), number(row.get("n_train")),
         number(row.get("n_val")), number(row.get("best_step")), number(row.get("val_loss")),
         percent(row.get("val_accuracy")), number(row.get("share_of_end")), number(row.get("seconds")))
        for row in found.get("trainings") or []
    ]  # fmt: skip
    if not rows:
        return ""
    head = ("training", "trained on", "validated on", "best step", "loss", "accuracy", "share of the end", "seconds")
    return folded(
        plural(len(rows), "training"), table(head, rows, "★ is the one that is kept; all looks: training.csv")
    )


def _frozen(found: Metrics) -> str:
    frozen = found.get("frozen") or {}
    if not frozen.get("before"):
        return ""
    before, after = str(frozen["before"]), str(frozen.get("after"))
    if not frozen.get("parameters"):
        return f"<p>Nothing: all {number(frozen.get('trained'))} parameters were free to train.</p>"
    same = "the same before and after" if before == after else "<strong>different after the training</strong>"
    bn = dig(found, "plan", "bn")
    norm = f" BatchNorm: {clipped(bn)}." if bn else ""
    return (
        f"<p>{number(frozen.get('trained'))} parameters were free to train, {number(frozen.get('parameters'))} were "
        f"not.{norm} The SHA-256 of all that was to stay is {same}: <code>{clipped(before[:16])}</code>.</p>"
    )


def _mirror(found: Metrics) -> str:
    said = dig(found, "mirror", "words")
    return f"<p>{sentence(str(said))}</p>" if said else ""
