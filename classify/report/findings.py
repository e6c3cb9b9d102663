"""What the features say about the data: suspect labels, duplicates, conflicts, outliers, dead features."""

from collections.abc import Sequence

from classify.report.evidence import Evidence, Row, Section, dig
from classify.report.text import clipped, decimal, interval, measure_name, number, percent, plural, sentence, table
from classify.report.thumbnails import MAX_OUTLIERS, MAX_PAIRS, MAX_SUSPECTS, card, cards, ordered_pairs

MAX_DEAD = 20


def section(evidence: Evidence) -> Section | None:
    """Show what to look at in the data, each part with its CSV file."""
    parts = [make(evidence) for make in (_suspects, _duplicates, _conflicts, _outliers, _dead)]
    body = "".join(part for part in parts if part)
    return Section("data", "What to look at in the data", body) if body else None


def _part(title: str, words: str, shown: str, n: tuple[int, int], name: str) -> str:
    """Put a heading, the words, and how many of how many are shown, above what is shown."""
    held = f"{n[0]:,} of {n[1]:,} shown; all are in <code>findings/{name}.csv</code>." if n[1] else ""
    return f"<h3>{title}</h3><p>{words} {held}</p>{shown}"


def _words(evidence: Evidence, name: str) -> str:
    return sentence(str(evidence.get("hygiene", name, "words") or ""))


def _suspects(evidence: Evidence) -> str:
    rows = evidence.findings.get("suspect_labels") or []
    said = _words(evidence, "label_issues")
    if not rows:
        return (
            f"<h3>Suspect labels</h3><p>{said or 'None found.'}</p>" if evidence.get("hygiene", "label_issues") else ""
        )
    shown = [card([row["id"]], _suspect(row), evidence.pictures) for row in rows[:MAX_SUSPECTS]]
    title = f"Suspect labels: {len(rows):,}"
    return _part(title, said, cards(shown), (len(shown), len(rows)), "suspect_labels")


def _suspect(row: Row) -> list[str]:
    return [
        f"<strong>labelled {clipped(row['label'])}</strong>looks like {clipped(row['suggested'])}",
        f"its label gets {percent(row.get('probability_of_label'))}",
    ]


def _duplicates(evidence: Evidence) -> str:
    found, rows = evidence.get("hygiene", "duplicates"), evidence.findings.get("duplicates") or []
    if not found and not rows:
        return ""
    if not rows and found and not found.get("searched"):
        return f"<h3>Near-duplicates</h3><p>{_words(evidence, 'duplicates') or 'They were not searched for.'}</p>"
    words = f"{_words(evidence, 'duplicates')} {_confirmed(found)} {_without(evidence)}"
    title = f"Near-duplicates: {plural(int(dig(found, 'n_pairs') or len(rows)), 'pair')}"
    return _part(title, words, *_pairs(evidence, rows), "duplicates")


def _confirmed(found: Row | None) -> str:
    by_features = "They were found by their features and not confirmed on the pixels: look before you delete."
    return by_features if dig(found, "confirmed_by") == "features" else ""


def _without(evidence: Evidence) -> str:
    """Say what the test reads without the images that have a twin in training."""
    kept = evidence.get("hygiene", "duplicates", "without_cross_split") or {}
    said = [
        f"{measure_name(name)} {interval(measured)} instead of {percent(evidence.get('test', name, 'value'))}"
        for name, measured in kept.items()
        if name == (evidence.get("imbalance", "leads") or "accuracy")
    ]
    return f"Without the test images that have a twin in training: {'; '.join(said)}." if said else ""


def _pairs(evidence: Evidence, rows: Sequence[Row]) -> tuple[str, tuple[int, int]]:
    shown = [card([row["id_a"], row["id_b"]], _pair(row), evidence.pictures) for row in ordered_pairs(rows)[:MAX_PAIRS]]
    return cards(shown, "cards pairs") if shown else "", (len(shown), len(rows))


def _pair(row: Row) -> list[str]:
    lines = [f"<strong>{'the same image' if row.get('kind') == 'exact' else 'nearly the same'}</strong>"]
    if row.get("split_a") != row.get("split_b"):
        lines.append(
            f'<span class="tag">across the split: {_split(row["split_a"])} and {_split(row["split_b"])}</span>'
        )
    if row.get("label_a") != row.get("label_b"):
        lines.append(f'<span class="tag">two labels: {clipped(row["label_a"])} and {clipped(row["label_b"])}</span>')
    else:
        lines.append(f"both {clipped(row['label_a'])}")
    return lines


def _split(name: str) -> str:
    return clipped(name or "none given")


def _conflicts(evidence: Evidence) -> str:
    rows = evidence.findings.get("conflicts") or []
    if not rows:
        return ""
    words = "The same picture under two labels: one of them is wrong, or the classes overlap."
    return _part(f"Conflicting labels: {plural(len(rows), 'pair')}", words, *_pairs(evidence, rows), "conflicts")


def _outliers(evidence: Evidence) -> str:
    rows = evidence.findings.get("outliers") or []
    if not rows:
        return ""
    shown = [
        card(
            [row["id"]],
            [f"<strong>{clipped(row.get('label') or 'no label')}</strong>", f"distance {decimal(row.get('distance'))}"],
            evidence.pictures,
        )
        for row in rows[:MAX_OUTLIERS]
    ]
    others = "other image of its class" if evidence.get("hygiene", "outliers", "among") == "class" else "other image"
    words = f"Far from every {others}: broken, mislaid, or of a kind of its own."
    return _part(f"Outliers: {len(rows):,}", words, cards(shown), (len(shown), len(rows)), "outliers")


def _dead(evidence: Evidence) -> str:
    rows, found = evidence.findings.get("dead_features") or [], evidence.get("hygiene", "dead_features")
    if not rows:
        return ""
    shown = [(clipped(row["layer"]), number(row["feature"]), decimal(row.get("value"))) for row in rows[:MAX_DEAD]]
    of = f" of {number(found['of'])}" if dig(found, "of") else ""
    words = "Numbers that are the same for every image: they cost room and say nothing."
    made = table(("layer", "feature", "its value"), shown)
    return _part(f"Dead features: {len(rows):,}{of}", words, made, (len(shown), len(rows)), "dead_features")
