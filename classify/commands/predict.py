"""`predict` and `evaluate`: what a run says of other images."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from classify.terminal import percent
from extract.console import as_json, loading_options, note_json, root_option
from extract.terminal import print_json, print_table, progress_bar


@click.command()
@click.argument("run")
@click.argument("inputs", nargs=-1, required=True)
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), default="csv", help="Form of the output.")
@click.option("--json", "as_json", is_flag=True, callback=note_json, help="The same as --format jsonl.")
@click.option(
    "-o", "--output", type=click.File("w", encoding="utf-8", errors="surrogateescape", lazy=True), default="-"
)
@click.option("--top", type=click.IntRange(1), default=5, help="How many classes to list per image.")
@click.option(
    "--abstain-below",
    type=click.FloatRange(0, 1),
    help="Mark answers of a lower probability.  [default: the run's own threshold]",
)
@root_option
@loading_options
def predict(
    run: str, inputs: tuple[str, ...], as_json: bool, form: str, output: Any, root: Path, **options: Any
) -> None:
    """Classify images with a run: files, folders, a manifest or a tar; one row or JSON object per image.

    \b
    Example: python pipeline.py predict photos new/ --format jsonl -o answers.jsonl
    """
    from classify.predict import PredictSpec, records_of
    from classify.predict import predict as answers

    records = records_of(inputs, root)
    with progress_bar() as bar:
        _write_answers(answers(PredictSpec(run, **options), records, bar), output, as_json or form == "jsonl")


def _write_answers(answers: Iterable[dict[str, Any]], output: Any, lines: bool) -> None:
    from classify.predict import CSV_FIELDS, csv_row

    table: csv.DictWriter[str] = csv.DictWriter(output, CSV_FIELDS)
    if not lines:
        table.writeheader()
    for answer in answers:
        output.write(json.dumps(answer) + "\n") if lines else table.writerow(csv_row(answer))


@click.command()
@click.argument("run")
@click.argument("data")
@root_option
@loading_options
@as_json
def evaluate(run: str, data: str, root: Path, as_json: bool, **options: Any) -> None:
    """Measure a run on other labelled images; where they have splits, on the test (or else validation) split.

    \b
    Example: python pipeline.py evaluate photos new-photos
    """
    from classify.predict import PredictSpec, evaluate_run

    with progress_bar() as bar:
        done = evaluate_run(PredictSpec(run, **options), data, root, bar)
    if as_json:
        print_json(done)
        return
    print_table(["metric", "value, 95 %"], [[name, _metric(name, value)] for name, value in done["metrics"].items()])
    click.echo(f"\n{done['n']} images, {done['n_bad']} bad.")
    if calibration := done.get("calibration"):
        click.echo(f"Probabilities are off by {calibration['ece']:.1%} on average (expected calibration error).")
    if conformal := done.get("conformal"):
        covered, asked = percent(conformal["coverage"]).strip(), 1 - conformal["alpha"]
        click.echo(f"Prediction sets hold the truth in {covered} of images; {asked:.0%} were asked for.")
    if done.get("unseen_classes"):
        click.echo(f"Never seen in training, and so always wrong: {', '.join(done['unseen_classes'])}", err=True)


def _metric(name: str, value: dict[str, float]) -> str:
    return f"{value['value']:.3f}  [{value['low']:.3f}, {value['high']:.3f}]" if name == "log_loss" else percent(value)
