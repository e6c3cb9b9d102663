"""`fit`: a classifier from cached features, by any strategy."""

import sys
from pathlib import Path
from typing import Any

import click

from classify.advise.terminal import echo_advice
from classify.options import FitCommand, shared_options, split_tuning, tuning_options
from classify.terminal import echo_fit
from classify.tuning import AUTO, LINEAR
from classify.tuning import STRATEGIES as TUNED
from extract.console import FOLDER, as_json, cache_option, given, root_option, stoppable
from extract.errors import OptionError
from extract.spec import EngineSpec
from extract.terminal import print_json, progress_bar

SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command(cls=FitCommand)
@click.argument("features")
@shared_options("layers")
@click.option(
    "--head",
    default="logistic",
    help="logistic, linear-svm, ridge, knn, lda, centroid, sgd, or a scikit-learn classifier by its import path.",
)
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE[,VALUE]",
    help="Values to try of a head by import path: n_estimators=100,300.",
)
@click.option("--class-weight", type=click.Choice(["balanced"]), help="Let all classes count alike.")
@click.option(
    "--strategy",
    type=click.Choice([LINEAR, *TUNED, AUTO]),
    help="linear: a head on frozen features; the others train the network, too: its top, from the head on, or all; "
    "auto finds out what pays.  [default: auto; linear with --head, --protocol, --few-shot or --multi-label]",
)
@click.option(
    "--protocol",
    help="Follow a published protocol: kornblith, clip, dinov2, dinov2-knn, vissl-svm, few-shot.",
)
@click.option(
    "--few-shot", type=click.IntRange(1), metavar="K", help="Learn from K images a class, drawn several times."
)
@click.option("--draws", type=click.IntRange(5, 1000), default=5, help="How often few-shot draws.")
@shared_options("metric", "cv", "group", "duplicates", "labels")
@click.option(
    "--multi-label",
    is_flag=True,
    help="Images have several labels: cat|dog names them, - says none of them, an empty cell says unknown.",
)
@click.option(
    "--hold-out",
    type=click.FloatRange(0, 0.5, min_open=True),
    default=0.2,
    help="Share held out as a test where DATA names no test images.",
)
@click.option("--alpha", type=SHARE, default=0.1, help="Share of prediction sets that may miss the truth.")
@click.option("--answer-accuracy", type=SHARE, help="Abstain where answers would not be right as often as this: 0.95.")
@shared_options("data")
@root_option
@shared_options("seed", "device")
@click.option("--out", type=FOLDER, help="Folder of the run.  [default: runs/NAME]")
@shared_options("jobs", "min_gain", "engine", "address")
@tuning_options
@click.option("--sklearn-joblib", is_flag=True, help="Write the head as head.joblib, too: a pickle, for your own code.")
@cache_option
@as_json
def fit(features: str, params: tuple[str, ...], as_json: bool, sklearn_joblib: bool, **options: Any) -> None:
    """Train and test a classifier on cached features: NAME, NAME/KEY, or the path of a features.h5.

    \b
    Example: python pipeline.py fit photos
             python pipeline.py fit photos --strategy linear
             python pipeline.py fit photos --head sklearn.ensemble.RandomForestClassifier --param max_depth=8,16
             python pipeline.py fit photos --protocol kornblith
             python pipeline.py fit photos --few-shot 5 --draws 20
             python pipeline.py fit photos --strategy tail --cut layer3 --budget 10m
             python pipeline.py fit photos --budget 30m
    """
    from classify.fit import fit as run
    from classify.heads import parse_params
    from classify.spec import FitSpec

    options, tune = split_tuning(options)
    options["engine"] = EngineSpec(options["engine"], options.pop("address"))
    spec = FitSpec(features, params=parse_params(params), command=("offshelf", *sys.argv[1:]), tune=tune, **options)
    if spec.strategy != AUTO and given("min_gain"):
        raise OptionError("--min-gain is for a strategy that chooses", remedy="Take --strategy auto, or leave it out")
    with stoppable(click.get_current_context()), progress_bar() as bar:
        metrics = run(spec, progress=bar)
    if sklearn_joblib:
        _write_joblib(metrics["run"])
    if as_json:
        print_json(metrics)
        return
    echo_fit(metrics)
    if metrics["advice"]:
        click.echo()
        echo_advice(metrics["advice"])


def _write_joblib(folder: str) -> None:
    """Write the head of a run as scikit-learn's, and warn of what it is."""
    from classify.archive import read_run
    from classify.sklearn_joblib import NAME, WARNING, write_joblib

    path = Path(folder) / NAME
    write_joblib(read_run(folder), path)
    click.echo(f"Warning: {WARNING.format(path=path)}.", err=True)
