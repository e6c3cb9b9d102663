"""`advise`: what to do with cached features."""

import sys
from typing import Any

import click

from classify.advise.terminal import echo_advice
from classify.options import Duration, shared_options
from classify.tuning import AUTO, TuneSpec
from extract.console import as_json, cache_option, root_option, stoppable
from extract.terminal import print_json, progress_bar


@click.command()
@click.argument("features")
@click.option(
    "--models",
    multiple=True,
    metavar="NAME[=WEIGHTS],...",
    help="Compare these networks, too, each with weights as extract takes them.",
)
@click.option("--weights", default=AUTO, help="Of those --models that name none: auto, an enum name, or none.")
@click.option(
    "--budget",
    type=Duration(),
    help="Time for all beyond the probe: 90s, 2h; what is left of it is for --models.  [default: 10m]",
)
@shared_options("min_gain", "layers", "metric", "cv", "group", "duplicates", "labels", "data")
@root_option
@shared_options("seed", "device", "jobs")
@cache_option
@as_json
def advise(
    features: str, models: tuple[str, ...], weights: str, budget: float | None, as_json: bool, **options: Any
) -> None:
    """Say what to do with cached features: how near the images are to what the network knows, and what pays.

    \b
    Example: python pipeline.py advise photos
             python pipeline.py advise photos --models resnet18,resnet50=resnet50.safetensors
    """
    from classify.advise.backbones import parse_models
    from classify.advise.story import AdviseSpec
    from classify.advise.story import advise as run
    from classify.spec import FitSpec

    wanted = parse_models(",".join(models).split(",") if models else [], weights, options["seed"])
    tune = TuneSpec(budget_s=budget)
    command = ("offshelf", *sys.argv[1:])
    spec = FitSpec(features, strategy=AUTO, command=command, tune=tune, **options)
    with stoppable(click.get_current_context()), progress_bar() as bar:
        advice = run(AdviseSpec(spec, tuple(wanted)), bar)
    print_json(advice) if as_json else echo_advice(advice)
