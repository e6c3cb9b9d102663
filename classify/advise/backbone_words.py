"""A comparison of networks in plain words."""

from collections.abc import Mapping
from typing import Any

from classify.advise.phrases import article, differs, joined
from classify.report.reproduce import command_line
from classify.report.text import interval, measure_name, percent

Row = Mapping[str, Any]


def said_of(ranking: Mapping[str, Any]) -> str:
    """Say which network does best, which to take and why, and which could not be compared."""
    rows = {row["name"]: row for row in ranking["rows"]}
    best, chosen = rows[ranking["best"]], rows[ranking["chosen"]]
    advice = _best_alone if chosen is best else _cheaper
    several = sum(not row["reason"] for row in rows.values()) > 1
    said = [_leads(best, ranking), advice(chosen, best, ranking)] if several else [_alone(best, ranking)]
    said += [] if chosen["current"] else [f"Run `{command_line(ranking)}`, and fit that."]
    said += [f"{row['name']} was not compared: {row['reason']}." for row in rows.values() if row["reason"]]
    return " ".join(said)


def _alone(row: Row, ranking: Mapping[str, Any]) -> str:
    images = f"{ranking['n']:,} of the training images"
    return f"There is only {row['name']}: {_value(row, ranking)} on {images} at {row['layer']}."


def _leads(best: Row, ranking: Mapping[str, Any]) -> str:
    compared = sum(not row["reason"] for row in ranking["rows"])
    return (
        f"Of {compared} networks, {best['name']} tells {ranking['n']:,} of the training images apart best: "
        f"{_value(best, ranking)} at {best['layer']}."
    )


def _value(row: Row, ranking: Mapping[str, Any]) -> str:
    return f"{article(measure_name(ranking['metric']))} of {interval(row['value'])}"


def _best_alone(chosen: Row, best: Row, ranking: Mapping[str, Any]) -> str:
    rivals = [row["name"] for row in ranking["rows"] if row["against"] and row["against"]["high"] >= 0]
    if not rivals:
        return f"Take {chosen['name']}: every other one is surely worse."
    return f"Take {chosen['name']}: no cheaper one comes close enough, though {joined(rivals)} may do as well."


def _cheaper(chosen: Row, best: Row, ranking: Mapping[str, Any]) -> str:
    less = percent(chosen["giga_ops"] / best["giga_ops"])
    return (
        f"Take {chosen['name']} at {chosen['layer']}: {differs(chosen['against'])}, which may be chance, for {less} of "
        f"the computing."
    )
