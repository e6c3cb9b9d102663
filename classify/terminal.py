"""What `fit` and `compare` show on a terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from extract.terminal import print_table

NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "map": "mAP",
    "mean_average_precision": "mAP",
}


def became(row: Mapping[str, Any]) -> str:
    """Say what became of a rung of an advice; the probe is what all others are held against."""
    if not row.get("tried"):
        return "not tried"
    if row.get("why"):
        return str(row["why"])
    return ("accepted" if row.get("accepted") else "no sure gain") if row.get("gain") else "the start"


def percent(metric: dict[str, float]) -> str:
    """Write a share with its interval."""
    return f"{metric['value']:z6.1%}  [{metric['low']:z.1%}, {metric['high']:z.1%}]"


def short(value: object) -> str:
    """Write a setting without digits that nobody reads; of one for each class only how many there are."""
    if isinstance(value, dict):
        return f"{len(value)} by class"
    return f"{value:.4g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def echo_fit(metrics: dict[str, Any]) -> None:
    """Print the taps, what was chosen, what it is worth, and what there is to look at."""
    metric = str(metrics["metric"])
    name = NAMES.get(metric, metric)
    if metrics["per_layer"]:
        _echo_layers(metrics, name)
    probe = metrics.get("probe") or metrics
    where = " + ".join(probe["layers"])
    click.echo(f"Chosen: {_head(probe)} on {where} ({probe['transform']}); {metrics['n_train']} training images.")
    if selection := probe.get("selection"):
        naive, corrected = (percent(selection[key]).strip() for key in ("naive", "corrected"))
        tried = selection["n_configurations"]
        click.echo(f"Cross-validated {name}: {naive}; corrected for choosing among {tried}: {corrected}")
    click.echo(f"Test {name}: {percent(probe['test'][metric]).strip()} on {metrics['n_test']} images.")
    if "finetune" in metrics:
        _echo_training(metrics, name)
    for note in (metrics.get("protocol") or {}).get("notes", []):
        click.echo(f"Note: {note}")
    _echo_abstain((metrics.get("calibration") or {}).get("abstain"))
    _echo_findings(metrics)
    click.echo(f"Report: {Path(metrics['run']) / 'report.html'}")


def _head(found: dict[str, Any]) -> str:
    """Name a head with its settings."""
    settings = [f"{key}={short(value)}" for key, value in found["params"].items()]
    return f"{found['head']} ({', '.join(settings)})" if settings else found["head"]


def _echo_training(metrics: dict[str, Any], name: str) -> None:
    """Print what was trained of the network, and what that gained over the probe above."""
    metric, found = metrics["metric"], metrics["finetune"]
    above = f" above {found['kept_until']}" if found["kept_until"] else ""
    settings = ", ".join(f"{key}={short(value)}" for key, value in metrics["params"].items())
    click.echo(f"Trained: {found['strategy']}, the network{above} ({settings}).")
    if metrics["params"].get("steps") == 0:
        click.echo("No step of it lowered the validation loss: the weights are those that it began with.")
    click.echo(f"Test {name} of the trained network: {percent(metrics['test'][metric]).strip()}.")
    for side, images in (("out_of_fold", "held out of training"), ("test", "of the test")):
        if gain := metrics["gain"][side]:
            value, low, high = (f"{gain[metric][end] * 100:+z.1f}" for end in ("value", "low", "high"))
            click.echo(f"Gain over the probe: {value} points  [{low}, {high}] on {gain['n']} images {images}.")


def _echo_abstain(found: dict[str, Any] | None) -> None:
    """Say what the accuracy that was asked for costs in answers, and whether the test holds it."""
    if not found:
        return
    answered, right = (found["test"][key] for key in ("coverage", "accuracy_of_answered"))
    held = f"{percent(answered).strip()} of the test images are answered"
    if right:
        held += f", and {percent(right).strip()} of these rightly"
    click.echo(f"Abstains below {found['threshold']:.1%}: {held}; {found['asked']:.0%} were asked for.")


def _echo_layers(metrics: dict[str, Any], name: str) -> None:
    metric, chosen = metrics["metric"], (metrics.get("probe") or metrics)["layers"]
    rows = [
        [
            row["layer"],
            row["dims"],
            row["transform"],
            percent(row[metric]),
            "<- chosen" if row["layer"] in chosen else "",
        ]
        for row in metrics["per_layer"]
    ]
    print_table(["tap", "dims", "transform", f"{name} of the scan, 95 %", ""], rows)
    click.echo()


def _echo_findings(metrics: dict[str, Any]) -> None:
    """Name what was found of the data, each with its number; nothing where there is nothing."""
    hygiene = metrics.get("hygiene") or {}
    found = [
        (hygiene.get("label_issues", {}).get("n", 0), "suspect label", "suspect labels"),
        (hygiene.get("duplicates", {}).get("n_pairs", 0), "pair of duplicates", "pairs of duplicates"),
        (hygiene.get("conflicts", {}).get("n", 0), "label conflict", "label conflicts"),
        (hygiene.get("outliers", {}).get("n", 0), "outlier", "outliers"),
    ]
    said = ", ".join(f"{n} {one if n == 1 else many}" for n, one, many in found if n)
    if said:
        click.echo(f"Look at: {said} (findings/*.csv, and in the report)")
    if grouping := metrics.get("grouping"):
        click.echo(f"Groups: {grouping['words']}")
    if curve := metrics.get("learning_curve"):
        click.echo(f"More images: {curve['words']}")


def echo_compare(found: dict[str, Any]) -> None:
    """Print runs side by side, and which differences hold."""
    metric = found["metric"]
    name = NAMES.get(metric, metric)
    rows = [
        [run["run"], " + ".join(run["layers"]), run["head"], run["n_test"], percent(run["test"][metric])]
        for run in found["runs"]
    ]
    print_table(["run", "taps", "head", "tested", f"test {name}, 95 %"], rows)
    click.echo()
    for pair in found["pairs"]:
        click.echo(pair["words"])
    for note in found["notes"]:
        click.echo(f"Note: {note}")
