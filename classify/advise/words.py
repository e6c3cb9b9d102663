"""The advice in plain words: the case, what says so and how surely, what to do next, what would change the answer."""

from collections.abc import Callable, Mapping
from typing import Any

from classify.advise import phrases
from classify.advise.phrases import differs, gains, joined, layer, points
from classify.advise.profile import UNCLEAR, USELESS
from classify.advise.rungs import LEFT, TAPS, TIME
from classify.report.evidence import dig, is_measure
from classify.report.reproduce import command_line
from classify.report.text import duration, interval, measure_name, number, percent
from classify.tuning import LINEAR

Advice = Mapping[str, Any]
Row = Mapping[str, Any]

EASY = 0.98
"""What random weights reach where images leave the learned ones hardly room to be better."""
NO_CHANCE = 0.0005
"""What would be written as a chance of 0.0 %."""
TIMES = (
    "With twice as many training images the linear classifier would reach {name} of about {about}",
    "with four times as many about {about}",
)
"""What is said of the first and the second prediction of the learning curve."""


def case_name(similarity: str, size: str) -> str:
    """Name the case of the four: `small and similar`."""
    return phrases.NAMES[similarity].format(size=size)


def with_words(advice: Advice) -> dict[str, Any]:
    """Return the advice with the words of its case and of what it recommends, and what would change that."""
    changes = {"changes_when": changes_when(advice), "more_budget": more_budget(advice)}
    said = {"words": explain(advice), "parts": parts(advice)} | changes
    return dict(advice) | {
        "case": {**advice["case"], "words": _case(advice)},
        "recommendation": {**advice["recommendation"], **said},
    }


def explain(advice: Advice) -> str:
    """Write the paragraph that one can act on: every measure has its interval, every number is one of the advice."""
    return " ".join(parts(advice).values())


def parts(advice: Advice) -> dict[str, str]:
    """Return what the paragraph is made of, by what each part is about; empty ones left out."""
    said = {about: words for about, part in PARTS.items() if (words := part(advice))}
    return said | ({"brackets": phrases.BRACKETS} if any(" %" in words for words in said.values()) else {})


def changes_when(advice: Advice) -> str:
    """Say what would change the answer."""
    found = [f"with {said}" for rule in CHANGES if (said := rule(advice))]
    return f"The answer would change {joined(found, '; or ', '; ')}."


def more_budget(advice: Advice) -> str | None:
    """Say what more time would allow to try; None where time was not what held anything back."""
    named = [f"{row['rung']} (about {duration(row['projected_s'])})" for row in held_back(advice)]
    if not named:
        return None
    return f"With more time than the {duration(advice['budget_s'])} allowed, {joined(named)} could be tried too."


def held_back(advice: Advice) -> list[Row]:
    """Return the rungs that were likely enough to gain, and would have taken longer than what was left."""
    return [row for row in advice["ladder"] if row["why"] == TIME]


def _trained(advice: Advice) -> list[Row]:
    """Return the rungs above the probe that were tried."""
    return [row for row in advice["ladder"] if row["tried"] and row["rung"] != LINEAR]


def _metric(advice: Advice) -> str:
    return measure_name(dig(advice, "metric") or dig(advice, "depth_profile", "metric") or "accuracy")


def _case(advice: Advice) -> str:
    case = advice["case"]
    meaning = phrases.MEANINGS[case["similarity"]] if advice["depth_profile"] else phrases.NO_PROFILE
    images = f"{number(case['n_train'])} training images, about {case['n_per_class']:,.0f} of a typical class"
    return f"Your case is “{case['name']}”: {images}, and {meaning}."


def _evidence(advice: Advice) -> str:
    """Say what the layers showed: the last against the best before it, and the learned weights against random ones."""
    profile = advice["depth_profile"]
    if not profile:
        return ""
    last, drop, metric = profile["taps"][-1], profile["drop"], phrases.article(measure_name(profile["metric"]))
    random = _no_help if advice["case"]["similarity"] == USELESS else _help
    return (
        f"The evidence: a linear classifier on {layer(profile['last'])}, the last layer, reaches {metric} of "
        f"{interval(last['pretrained'])}; on {layer(drop['layer'])}, the best layer before it, {differs(drop)}; "
        f"and with random weights in place of the learned ones, {random(profile)}."
    )


def _help(profile: Row) -> str:
    return f"on {layer(profile['last'])}, {differs(profile['taps'][-1]['gain'], 'lower', 'higher')}"


def _no_help(profile: Row) -> str:
    gain = profile["gain"]
    lost = differs(gain, "lower", "higher")
    said = f"no layer is surely worse: {layer(gain['layer'])}, which loses most by them, is {lost}"
    best = max(profile["taps"], key=lambda tap: tap["random"]["value"])
    if best["random"]["value"] < EASY:
        return said
    reached = f"{layer(best['layer'])} reaches {interval(best['random'])} with them"
    return f"{said}; but {reached}, and on images as easy as these little can be told apart"


def _advised(advice: Advice) -> str:
    """Say what to do, and what that is worth; what it is expected to gain where it was not tried."""
    rung = advice["recommendation"]["rung"]
    row = next((row for row in advice["ladder"] if row["rung"] == rung), {})
    said = [f"The advice: {phrases.ADVICE[rung]}.", *_where(row)]
    if is_measure(row.get("value")):
        said.append(f"On training images held out, its {_metric(advice)} is {interval(row['value'])}{_beat(row)}.")
    elif row and not row["tried"]:
        said.append(f"It was not tried yet: it {_expected(row, advice)}{_takes(row)}.")
    return " ".join(said)


def _where(row: Row) -> list[str]:
    """Name the layers that the linear classifier stands on."""
    names = dig(row, "settings", "layers") if row.get("rung") in (LINEAR, TAPS) else None
    known = list(dict.fromkeys(map(layer, names or ())))
    return [f"It does best on {joined(known)}{', side by side' if len(known) > 1 else ''}."] if known else []


def _beat(row: Row) -> str:
    return f", {differs(row['gain'])} than with {row['over']}" if is_measure(row["gain"]) else ""


def _expected(row: Row, advice: Advice) -> str:
    """Say what a rung is expected to gain, and how likely that is worth it."""
    found = row["predicted"]
    if not found:
        return "may or may not gain something"
    chance = f"a chance of {percent(found['p'])} of more than {points(advice['min_gain'])}"
    return f"is expected to gain {gains(found)}, with {chance}"


def _takes(row: Row) -> str:
    return f"; it would take about {duration(row['projected_s'])}" if row["projected_s"] else ""


def _refused(advice: Advice) -> str:
    """Say of what was tried and not taken what it gave."""
    rows = [row for row in _trained(advice) if not row["accepted"] and is_measure(row["gain"])]
    each = [f"{row['rung']}, {differs(row['gain'])}" for row in rows]
    return f"Tried too, and not surely better: {joined(each, '; and ', '; ')}." if each else ""


def _failed(advice: Advice) -> str:
    """Say of the trainings that surely gain why the advice is another all the same."""
    rows = [row for row in _trained(advice) if row["why"] and is_measure(row["gain"])]
    each = [f"{row['rung']}{_beat(row)}" for row in rows]
    return f"Surely better, but its last training failed: {joined(each, '; and ', '; ')}." if each else ""


def _trial(advice: Advice) -> str:
    """Say what the cheap measurement gave, by which the others are predicted."""
    found = [(row, row["measurement"]) for row in advice["ladder"] if is_measure(dig(row, "measurement", "gain"))]
    each = [f"{row['rung']}, {differs(trial['gain'])} on {number(trial['n'])} images held out" for row, trial in found]
    return f"A short first training, beside the linear classifier: {joined(each)}." if each else ""


def _untried(advice: Advice) -> str:
    """Say what the likeliest of the ways that were not tried promised, where the network stays as it is."""
    rows = [row for row in advice["ladder"] if not row["tried"] and row["predicted"]]
    if not rows or advice["recommendation"]["strategy"] != LINEAR:
        return ""
    best = max(rows, key=lambda row: row["predicted"]["p"])
    if best["predicted"]["p"] < NO_CHANCE:
        return "Nothing that was not tried promises anything."
    return f"Of the ways that were not tried, {best['rung']} promises most: it {_expected(best, advice)}."


def _next(advice: Advice) -> str:
    command = advice["recommendation"]["command"]
    line = command if isinstance(command, str) else command_line({"command": command})
    waiting = [row["rung"] for row in advice["ladder"] if row["why"] == LEFT]
    what = f"This tries {joined(waiting)}, and takes what surely gains" if waiting else "The command for this advice"
    return f"{what}: `{line}`." if line else ""


def _more_images(advice: Advice) -> str:
    """Say what the linear classifier would reach with twice and with four times the images."""
    curve = advice["learning_curve"]
    if not curve or not curve.get("predictions"):
        return "What more training images would bring could not be measured."
    name = phrases.article(measure_name(curve["metric"]))
    rows = zip(TIMES, curve["predictions"], strict=False)
    each = [said.format(name=name, about=interval(_right(row["error"]))) for said, row in rows]
    return f"{', '.join(each)}; beyond that nothing can be predicted. {phrases.LIMITS[_limit(curve)]}"


def _right(error: Row) -> dict[str, float]:
    """Turn an error into the share that is right."""
    return {"value": 1 - error["value"], "low": 1 - error["high"], "high": 1 - error["low"]}


def _limit(curve: Row) -> str:
    return curve.get("limited") or curve["verdict"]


def _if_unclear(advice: Advice) -> str:
    if not advice["depth_profile"]:
        return phrases.IF_UNMEASURED
    return phrases.IF_UNCLEAR if advice["case"]["similarity"] == UNCLEAR else ""


def _if_more_images(advice: Advice) -> str:
    curve = advice["learning_curve"]
    kept = advice["recommendation"]["strategy"] == LINEAR
    return phrases.IF_MORE[_limit(curve) if curve else "undecided"] if kept else phrases.IF_TRAINED


def _if_more_time(advice: Advice) -> str:
    rungs = [row["rung"] for row in held_back(advice)]
    return f"more time, in which {joined(rungs)} could be tried" if rungs else ""


def _if_others(advice: Advice) -> str:
    return phrases.IF_OTHERS


def _budget(advice: Advice) -> str:
    return more_budget(advice) or ""


PARTS: dict[str, Callable[[Advice], str]] = {
    "case": _case,
    "evidence": _evidence,
    "advice": _advised,
    "trial": _trial,
    "failed": _failed,
    "refused": _refused,
    "untried": _untried,
    "next": _next,
    "more_images": _more_images,
    "more_time": _budget,
    "changes": changes_when,
}
CHANGES: tuple[Callable[[Advice], str], ...] = (_if_unclear, _if_more_images, _if_more_time, _if_others)
