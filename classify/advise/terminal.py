"""What `advise`, and a `fit` that chose its strategy itself, show of the advice on a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from classify.terminal import became, percent
from extract.terminal import print_table

Row = Mapping[str, Any]


def echo_advice(advice: Mapping[str, Any]) -> None:
    """Print what the layers are worth, what was tried and why, and the advice in words with its command."""
    if profile := advice["depth_profile"]:
        _echo_layers(profile)
    if advice["ladder"]:
        _echo_ladder(advice["ladder"])
    for words in advice["recommendation"]["parts"].values():
        click.echo(words)
    if ranking := advice.get("backbones"):
        click.echo()
        echo_backbones(ranking)
    for note in advice["notes"]:
        click.echo(f"Note: {note}")


def _echo_layers(profile: Row) -> None:
    rows = [
        [tap["layer"], tap["dims"], percent(tap["pretrained"]), percent(tap["random"]),
         "<- peak" if tap["layer"] == profile["peak"] else ""]
        for tap in profile["taps"]
    ]  # fmt: skip
    name = profile["metric"].replace("_", " ")
    print_table(["layer", "dims", f"{name}, 95 %", "with random weights", ""], rows)
    click.echo()


def _echo_ladder(ladder: Sequence[Row]) -> None:
    rows = [
        [row["rung"], became(row), _points(_expected(row)), _points(row["gain"]), _took(row), row["reason"]]
        for row in ladder
    ]
    print_table(["strategy", "", "expected gain, points", "gain, points", "seconds", "why"], rows)
    click.echo()


def _expected(row: Row) -> Row | None:
    return row["predicted"] and row["predicted"] | {"value": row["predicted"]["gain"]}


def _points(found: Row | None) -> str:
    if not found:
        return ""
    value, low, high = (f"{100 * found[end]:+z.1f}" for end in ("value", "low", "high"))
    return f"{value}  [{low}, {high}]"


def _took(row: Row) -> str:
    """Write what a rung took, or about what it would."""
    if row["seconds"] is not None:
        return f"{row['seconds']:.0f}"
    return "" if row["projected_s"] is None else f"about {row['projected_s']:.0f}"


def echo_backbones(ranking: Row) -> None:
    """Print the networks in a table, the best first, and the words below."""
    name = ranking["metric"].replace("_", " ")
    head = ["network", "best layer", "dims", f"{name}, 95 %", "beside the best, points"]
    print_table([*head, "images/s", "parameters", "GMAC", ""], [_network(row, ranking) for row in ranking["rows"]])
    click.echo()
    click.echo(ranking["words"])


def _network(row: Row, ranking: Row) -> list[Any]:
    if row["reason"]:
        return [row["name"], *[""] * 7, "not compared"]
    cost = [f"{row['images_per_s']:.0f}", f"{row['parameters'] / 1e6:.1f} M", f"{row['giga_ops']:.2f}"]
    taken = "<- take" if row["name"] == ranking["chosen"] else ""
    return [row["name"], row["layer"], row["dims"], percent(row["value"]), _points(row["against"]), *cost, taken]
