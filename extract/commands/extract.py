"""`extract`: features into the cache."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from extract.console import SEED, as_json, cache_option, loading_options, root_option, stoppable
from extract.errors import OptionError
from extract.recipe import INTERPOLATIONS, MAX_VIEWS, PRECISIONS, STORES
from extract.spec import COMPILERS, DECODERS, ENGINES, BackboneSpec, EngineSpec, ExtractSpec
from extract.summaries import echo_dry_run, echo_extract, echo_part
from extract.terminal import count, print_json, progress_bar

POSITIVE = click.FloatRange(0, min_open=True)


class Part(click.ParamType):
    """Which part of how many, as in 3/8: -> (3, 8)."""

    name = "K/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Read what the user typed."""
        number, _, of = str(value).partition("/")
        if not (number.isdecimal() and of.isdecimal()):
            self.fail(f"{value!r} is not K/N, as in 3/8", param, ctx)
        return int(number), int(of)


def engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what says on which machines the shards are computed."""
    options = (
        click.option("--engine", type=click.Choice(ENGINES), default="local", help="This machine, or a Ray cluster."),
        click.option("--address", help="Of ray: the cluster, auto or HOST:PORT.  [default: a private one here]"),
        click.option("--actors", type=click.IntRange(1), help="Of ray: how many compute.  [default: what fits]"),
        click.option("--cpus-per-actor", "cpus", type=POSITIVE, default=1.0, help="Of ray: cores for each actor."),
        click.option("--gpus-per-actor", "gpus", type=POSITIVE, help="Of ray: GPUs for each actor, or a part of one."),
        click.option("--shard-timeout", "shard_timeout_s", type=POSITIVE, help="Of ray: seconds until a shard hangs."),
        click.option("--relay", help="Of ray: a URL, as s3://BUCKET/PREFIX, for shards of machines without the cache."),
        click.option("--part", type=Part(), help="Compute this part of DATA alone, as in 3/8; then: cache commit."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("data")
@click.option("--name", default="", help="Name of the feature set.  [default: that of DATA]", show_default=False)
@click.option("-m", "--model", default="resnet18", help="A torchvision ConvNet, or builtin; see: models.")
@click.option(
    "--weights", default="auto", help="auto (the V1 weights), an enum name, a file, or none (random, seeded)."
)
@click.option("--seed", type=SEED, default=0, help="Seed of random weights.")
@click.option(
    "-l",
    "--layer",
    "layers",
    multiple=True,
    default=("penultimate",),
    help="NAME[:POOL], repeatable; also stages. See: layers.",
)
@click.option(
    "--views",
    type=click.IntRange(1, MAX_VIEWS),
    default=1,
    help="Looks at each image: the centre, its mirror image, then random crops.",
)
@click.option("--view-seed", type=SEED, default=0, help="Seed of the random crops.")
@click.option("--view-flips/--no-view-flips", default=True, help="Whether views may be mirrored.")
@click.option(
    "--precision",
    type=click.Choice(["auto", *PRECISIONS]),
    default="auto",
    help="auto is fp32 on a CPU, bf16 on a GPU that has it.",
)
@click.option("--tf32", is_flag=True, help="Let a GPU round what fp32 multiplies to 10 bits.")
@click.option(
    "--decoder",
    type=click.Choice(DECODERS),
    default="exact",
    help="exact: as Pillow decodes. Faster, with other pixels: scaled (large JPEGs), gpu (nvJPEG).",
)
@click.option(
    "--compile",
    type=click.Choice(COMPILERS),
    default="auto",
    help="What runs the network; auto measures whether compiling pays.",
)
@click.option("--store", type=click.Choice(["auto", *STORES]), default="auto", help="auto is float32 for fp32.")
@click.option("--resize-size", type=int, help="Shorter side in pixels, instead of the weights' own.")
@click.option("--crop-size", type=int, help="Side of the centre crop in pixels, instead of the weights' own.")
@click.option("--interpolation", type=click.Choice(INTERPOLATIONS), help="Instead of the weights' own.")
@click.option("--mean", help="R,G,B on the scale 0..1, instead of the weights' own.")
@click.option("--std", help="R,G,B on the scale 0..1, instead of the weights' own.")
@click.option(
    "--max-bad", type=click.FloatRange(0, 1), default=1.0, help="Fail where a larger share is bad, or all are."
)
@click.option(
    "--dry-run", is_flag=True, help="Say what would be computed and written, and how long this machine takes for it."
)
@click.option(
    "--profile",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a trace for ui.perfetto.dev into this file.",
)
@click.option("--rehash", is_flag=True, help="Read every image and all of the cache again, whatever their times say.")
@click.option("--retry-failed", is_flag=True, help="Compute bad rows again.")
@click.option("--wait", is_flag=True, help="Wait for another extraction of the same features, instead of giving up.")
@engine_options
@root_option
@cache_option
@loading_options
@as_json
def extract(data: str, **options: Any) -> None:
    """Compute the features of DATA into the cache; only what is not there yet.

    DATA is a folder of class folders; a folder with train/, val/, test/ of class folders; a flat folder; a CSV or
    Parquet manifest (path,label[,split,group]); WebDataset .tar files, with brace patterns; or torchvision:NAME.

    \b
    Examples: python pipeline.py extract photos -m resnet50
              python pipeline.py extract photos -m squeezenet1_1 --weights squeezenet1_1.pt -l stages -l penultimate
    """
    if options["dry_run"] and options["profile"]:
        raise click.UsageError("--dry-run writes no --profile.")
    from extract.run import dry_run
    from extract.run import extract as run

    spec = _extract_spec(data, options)
    with stoppable(click.get_current_context()), progress_bar() as bar:
        done = dry_run(spec, bar) if options["dry_run"] else run(spec, bar)
    if options["dry_run"] and not options["as_json"]:
        echo_dry_run(done)
    elif not options["as_json"]:
        echo_part(done) if spec.part else echo_extract(done)
    if not options["dry_run"]:
        _check_bad(done, spec, options["max_bad"])
    if options["as_json"]:
        print_json(done)


def _check_bad(done: dict[str, Any], spec: ExtractSpec, most: float) -> None:
    """Raise OptionError where a larger share than `most` is bad, or every image; a part may well be all bad."""
    bad, rows, why = done["bad"], done["rows"], "See why with: pipeline.py cache info"
    if bad == rows > 0 and spec.part is None:
        raise OptionError(f"none of {count(rows, 'image')} can be used", where=spec.data, remedy=why)
    if bad > most * rows:
        said = f"{bad} of {rows} images are bad, more than --max-bad {most}"
        raise OptionError(said, where=spec.data, remedy=f"{why}; the features of the others are kept")


def _extract_spec(data: str, options: dict[str, Any]) -> ExtractSpec:
    overrides: dict[str, Any] = {name: options[name] for name in ("resize_size", "crop_size", "interpolation")}
    overrides |= {name: _triple(options[name], name) for name in ("mean", "std")}
    given = tuple((name, value) for name, value in overrides.items() if value is not None)
    taken = ("name", "root", "precision", "store", "cache", "device", "batch_size", "workers")
    taken += ("rehash", "retry_failed", "wait", "tf32", "decoder", "compile", "profile")
    taken += ("views", "view_seed", "view_flips", "part")
    engine = ("address", "actors", "cpus", "gpus", "shard_timeout_s", "relay")
    return ExtractSpec(
        data=data,
        backbone=BackboneSpec(options["model"], options["weights"], options["seed"], given),
        taps=options["layers"],
        engine=EngineSpec(options["engine"], **{name: options[name] for name in engine}),
        **{name: options[name] for name in taken},
    )


def _triple(text: str | None, name: str) -> tuple[float, ...] | None:
    try:
        return tuple(float(part) for part in text.split(",")) if text else None
    except ValueError:
        raise OptionError(
            f"--{name} {text!r} is not three numbers", remedy="Write them as in 0.485,0.456,0.406"
        ) from None
