"""The commands of offshelf: options become one frozen spec, one call does the work, the result is printed.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

import csv
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from classify.advise.terminal import echo_advice
from classify.options import Duration, FitCommand, shared_options, split_tuning, tuning_options
from classify.terminal import echo_compare, echo_fit, percent
from classify.tuning import AUTO, LINEAR, TuneSpec
from classify.tuning import STRATEGIES as TUNED
from extract.errors import Interrupted, OffshelfError, OptionError
from extract.spec import (
    COMPILERS,
    DECODERS,
    INTERPOLATIONS,
    MAX_VIEWS,
    PRECISIONS,
    STORES,
    BackboneSpec,
    ExtractSpec,
    available_cores,
)
from extract.terminal import (
    count,
    echo_dry_run,
    echo_extract,
    echo_garbage,
    echo_info,
    echo_inventory,
    echo_removed,
    echo_verified,
    print_json,
    print_table,
    progress_bar,
    size,
)

INTERRUPTED = 130
STOPS = (signal.SIGINT, signal.SIGTERM)
STOP = Interrupted("interrupted", remedy="What was finished is kept; run the same command again")
GRACE_S = 4.0
JSON, STOPPED = "offshelf.json", "offshelf.stopped"


class Commands(click.Group):
    """Turns our errors into one line on stderr, or one JSON object on stdout, and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Keep the order of the file, which is that of the work."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except Interrupted as error:
            _stopped(error, ctx)
        except OffshelfError as error:
            _fail(error, ctx)
        except BrokenPipeError:
            sys.stderr.close()  # the reader has seen enough; Python would complain at exit
            sys.exit(0)
        except OSError as error:
            remedy = "Check the path, its permissions and the room on the disk"
            _fail(OffshelfError(error.strerror or str(error), where=str(error.filename or ""), remedy=remedy), ctx)
        except MemoryError:
            _fail(
                OffshelfError("out of memory", remedy="Take a smaller --batch-size, fewer --workers, fewer taps"), ctx
            )
        except KeyboardInterrupt:
            _stopped(STOP, ctx)


@contextmanager
def _stoppable(ctx: click.Context) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the command in order, or in GRACE_S seconds all the same; a second one ends it now."""

    def stop(number: int, _: object) -> None:
        ctx.meta[STOPPED] = 128 + number
        for each in heard:
            signal.signal(each, lambda *_: os._exit(128 + number))
        late = threading.Timer(GRACE_S, _leave, [STOP, ctx])
        late.daemon = True
        late.start()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [each for each in STOPS if signal.getsignal(each) is not signal.SIG_IGN]
    before = {each: signal.signal(each, stop) for each in heard}
    try:
        yield
    finally:
        if STOPPED not in ctx.meta:
            for each, handler in before.items():
                signal.signal(each, handler)


def _stopped(error: Interrupted, ctx: click.Context) -> NoReturn:
    """End a command that was stopped; after a signal at once: Python takes seconds to tear torch down."""
    if STOPPED in ctx.meta:
        _leave(error, ctx)
    _fail(error, ctx, INTERRUPTED)


def _leave(error: Interrupted, ctx: click.Context) -> NoReturn:
    """End the process now; a cache is right at any instant."""
    try:
        _say(error, ctx)
        sys.stdout.flush()
    finally:
        os._exit(ctx.meta[STOPPED])


def _fail(error: OffshelfError, ctx: click.Context, code: int = 1) -> NoReturn:
    _say(error, ctx)
    sys.exit(code)


def _say(error: OffshelfError, ctx: click.Context) -> None:
    if ctx.meta.get(JSON):
        click.echo(json.dumps({"error": error.as_dict()}))
    else:
        click.echo(f"Error: {error}", err=True)


def _note_json(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    """Remember for all of the run that errors are wanted as JSON, too."""
    ctx.meta[JSON] = value
    return value


CONTEXT = {"show_default": True, "help_option_names": ["-h", "--help"], "max_content_width": 110}
SEED = click.IntRange(0, 2**32 - 1)
FOLDER = click.Path(file_okay=False, path_type=Path)

as_json = click.option("--json", "as_json", is_flag=True, callback=_note_json, help="Print one JSON object on stdout.")
cache_option = click.option("--cache", type=FOLDER, default=Path("cache"), help="Folder of the feature cache.")
root_option = click.option(
    "--root", type=FOLDER, help="Folder that the paths of a manifest start from, or where torchvision keeps a data set."
)
device_option = click.option(
    "--device", default="auto", help="auto, cpu, cuda, cuda:1; extract: also cuda:0,cuda:1 or cuda:all."
)


class LogLines(logging.Handler):
    """Shows what the library logs as lines on stderr, one for each message."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        click.echo(f"{record.levelname.capitalize()}: {record.getMessage()}", err=True)


class BatchSize(click.IntRange):
    """A number of images, or None for `auto`."""

    name = "auto|integer"

    def __init__(self) -> None:
        super().__init__(1, 4096)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read what the user typed."""
        return None if value == "auto" else super().convert(value, param, ctx)


batch_option = click.option(
    "-b",
    "--batch-size",
    type=BatchSize(),
    default="auto",
    help="Images per batch; auto goes by the network's input size.",
)
workers_option = click.option(
    "-j",
    "--workers",
    type=click.IntRange(1, 256),
    default=available_cores,
    show_default="cores",
    help="Processes that read and decode, each with a thread that resizes.",
)


def loading_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what every command takes that shows images to a network."""
    return device_option(workers_option(batch_option(command)))


def _given(option: str) -> bool:
    """Say whether the user typed an option of this command."""
    return click.get_current_context().get_parameter_source(option) is ParameterSource.COMMANDLINE


def _version() -> str:
    try:
        return version("offshelf")
    except PackageNotFoundError:
        return "not installed"


@click.group(cls=Commands, context_settings=CONTEXT)
@click.version_option(_version(), prog_name="offshelf")
@click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
def main(verbose: bool) -> None:
    """Turn a folder of images into a trustworthy classifier by reusing a pretrained ConvNet.

    \b
      python pipeline.py demo                      everything once, offline, in about a minute
      python pipeline.py extract photos -m resnet50
      python pipeline.py fit photos
      python pipeline.py predict photos new/*.jpg
    """
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[LogLines()])


@main.command()
@cache_option
@click.option("--out", type=FOLDER, default=Path("runs/demo"), help="Folder of the run.")
@as_json
def demo(cache: Path, out: Path, as_json: bool) -> None:
    """Do the main job once, offline: real digit images, the built-in backbone.

    \b
    Example: python pipeline.py demo
    """
    from classify.demo import demo as run

    with progress_bar() as bar:
        done = run(cache, out, bar)
    if as_json:
        print_json({"images": str(done.images), "first": done.first, "fit": done.metrics, "second": done.second})
        return
    click.echo(f"{done.first['rows']} images of handwritten digits, written to {done.images}\n")
    echo_extract(done.first)
    click.echo()
    echo_fit(done.metrics)
    click.echo(f"\nThe same extraction once more: {done.second['computed']} computed, {done.second['reused']} reused.")
    click.echo(f"Try it: python pipeline.py predict {out} {done.images / 'test' / '7'}")


@main.command()
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
@click.option("--max-bad", type=click.FloatRange(0, 1), default=1.0, help="Fail where a larger share of images is bad.")
@click.option("--dry-run", is_flag=True, help="Say what would be computed and written, and how long it takes.")
@click.option(
    "--profile",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a trace for ui.perfetto.dev into this file.",
)
@click.option("--rehash", is_flag=True, help="Read every image and all of the cache again, whatever their times say.")
@click.option("--retry-failed", is_flag=True, help="Compute bad rows again.")
@click.option("--wait", is_flag=True, help="Wait for another extraction of the same features, instead of giving up.")
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
    from extract.run import dry_run
    from extract.run import extract as run

    spec = _extract_spec(data, options)
    with _stoppable(click.get_current_context()), progress_bar() as bar:
        done = dry_run(spec, bar) if options["dry_run"] else run(spec, bar)
    if options["dry_run"] and not options["as_json"]:
        echo_dry_run(done)
    elif not options["as_json"]:
        echo_extract(done)
    if done.get("bad", 0) > options["max_bad"] * done["rows"]:
        raise OptionError(
            f"{done['bad']} of {done['rows']} images are bad, more than --max-bad {options['max_bad']}",
            where=data,
            remedy="The features of the others are kept",
        )
    if options["as_json"]:
        print_json(done)


def _extract_spec(data: str, options: dict[str, Any]) -> ExtractSpec:
    overrides: dict[str, Any] = {name: options[name] for name in ("resize_size", "crop_size", "interpolation")}
    overrides |= {name: _triple(options[name], name) for name in ("mean", "std")}
    given = tuple((name, value) for name, value in overrides.items() if value is not None)
    taken = ("name", "root", "precision", "store", "cache", "device", "batch_size", "workers")
    taken += ("rehash", "retry_failed", "wait", "tf32", "decoder", "compile", "profile")
    taken += ("views", "view_seed", "view_flips")
    return ExtractSpec(
        data=data,
        backbone=BackboneSpec(options["model"], options["weights"], options["seed"], given),
        taps=options["layers"],
        **{name: options[name] for name in taken},
    )


def _triple(text: str | None, name: str) -> tuple[float, ...] | None:
    try:
        return tuple(float(part) for part in text.split(",")) if text else None
    except ValueError:
        raise OptionError(f"--{name} {text!r} is not three numbers", remedy="As in 0.485,0.456,0.406") from None


@main.command(cls=FitCommand)
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
    default=LINEAR,
    help="linear: a head on frozen features; the others train the network, too: its top, from the head on, or all; "
    "auto finds out what pays.",
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
@click.option("--hold-out", type=float, default=0.2, help="Share held out as a test where DATA names no test images.")
@click.option("--alpha", type=float, default=0.1, help="Share of prediction sets that may miss the truth.")
@click.option("--answer-accuracy", type=float, help="Abstain where answers would not be right as often as this: 0.95.")
@shared_options("data")
@root_option
@shared_options("seed", "device")
@click.option("--out", type=FOLDER, help="Folder of the run.  [default: runs/NAME]")
@shared_options("jobs", "min_gain")
@tuning_options
@cache_option
@as_json
def fit(features: str, params: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Train and test a classifier on cached features: NAME, NAME/KEY, or the path of a features.h5.

    \b
    Example: python pipeline.py fit photos --head logistic
             python pipeline.py fit photos --head sklearn.ensemble.RandomForestClassifier --param max_depth=8,16
             python pipeline.py fit photos --protocol kornblith
             python pipeline.py fit photos --few-shot 5 --draws 20
             python pipeline.py fit photos --strategy tail --cut layer3 --budget 10m
             python pipeline.py fit photos --strategy auto --budget 30m
    """
    from classify.fit import fit as run
    from classify.heads import parse_params
    from classify.spec import FitSpec

    if options["strategy"] != AUTO and _given("min_gain"):
        raise OptionError("--min-gain is for a strategy that chooses", remedy="Take --strategy auto, or leave it out")
    options, tune = split_tuning(options)
    spec = FitSpec(features, params=parse_params(params), command=("offshelf", *sys.argv[1:]), tune=tune, **options)
    with _stoppable(click.get_current_context()), progress_bar() as bar:
        metrics = run(spec, progress=bar)
    if as_json:
        print_json(metrics)
        return
    echo_fit(metrics)
    if metrics["advice"]:
        click.echo()
        echo_advice(metrics["advice"])


@main.command()
@click.argument("features")
@click.option(
    "--models",
    multiple=True,
    metavar="NAME[=WEIGHTS],...",
    help="Compare these networks, too, each with weights as extract takes them.",
)
@click.option("--weights", default=AUTO, help="Of those --models that name none: auto, an enum name, or none.")
@click.option("--budget", type=Duration(), help="Time for all beyond the probe: 90s, 2h.  [default: 10m]")
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
    with _stoppable(click.get_current_context()), progress_bar() as bar:
        advice = run(AdviseSpec(spec, tuple(wanted)), bar)
    print_json(advice) if as_json else echo_advice(advice)


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with the comparison."
)
@as_json
def compare(runs: tuple[Path, ...], output: Path | None, as_json: bool) -> None:
    """Put runs side by side, with intervals on their differences over the images that they share.

    \b
    Example: python pipeline.py compare photos runs/other -o compare.html
    """
    from classify.compare import compare as put_side_by_side
    from classify.compare import render_compare

    found = put_side_by_side(runs)
    if output:
        output.write_text(render_compare(found), encoding="utf-8")
    print_json(found) if as_json else echo_compare(found)


@main.command()
@click.argument("run")
@click.argument("inputs", nargs=-1, required=True)
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), default="csv", help="Form of the output.")
@click.option("--json", "as_json", is_flag=True, callback=_note_json, help="The same as --format jsonl.")
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


@main.command()
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


@main.command()
@click.argument("model")
@click.option("--all", "every", is_flag=True, help="Every node, not only the blocks.")
@as_json
def layers(model: str, every: bool, as_json: bool) -> None:
    """List the taps of a network: shape, parameters and share of the compute up to each.

    \b
    Example: python pipeline.py layers resnet50
    """
    from extract.catalogue import list_layers

    found = list_layers(model, every=every)
    if as_json:
        print_json(found)
        return
    rows = [
        [
            row["layer"],
            " x ".join(map(str, row["shape"])),
            f"{row['parameters']:,}",
            f"{row['compute']:.1%}",
            row["note"],
        ]
        for row in found["layers"]
    ]
    print_table(["layer", "shape", "parameters", "compute", ""], rows)
    click.echo(f"\nPools: {', '.join(found['pools'])}. Example: -l {found['example']}")


@main.command()
@as_json
def models(as_json: bool) -> None:
    """List the networks that can be used, with their weights.

    \b
    Example: python pipeline.py models
    """
    from extract.catalogue import list_models

    found = list_models()
    if as_json:
        print_json(found)
        return
    rows = [
        [m["model"], f"{m['parameters'] / 1e6:.1f} M", f"{m['giga_ops']:.2f}", m["top1"] or "", ", ".join(m["weights"])]
        for m in found["models"]
    ]
    print_table(["model", "parameters", "GMAC", "ImageNet top-1 %", "weights (* on this machine)"], rows)


@main.group(context_settings=CONTEXT)
def cache() -> None:
    """Look into the feature cache, and after it."""


@cache.command("ls")
@cache_option
@as_json
def cache_ls(cache: Path, as_json: bool) -> None:
    """List the feature sets.

    \b
    Example: python pipeline.py cache ls
    """
    from extract.store.inventory import inventory

    found = inventory(cache)
    print_json(found) if as_json else echo_inventory(found)


@cache.command("info")
@click.argument("features")
@cache_option
@as_json
def cache_info(features: str, cache: Path, as_json: bool) -> None:
    """Show what a feature set is made of: recipe, source, shards and who wrote them, classes, splits, bad rows.

    \b
    Example: python pipeline.py cache info photos
    """
    from extract.store.inventory import describe

    found = describe(features, cache)
    print_json(found) if as_json else echo_info(found)


@cache.command("verify")
@click.argument("features", nargs=-1)
@click.option("--repair", is_flag=True, help="Remove what is damaged: the next extract makes it anew.")
@cache_option
@as_json
def cache_verify(features: tuple[str, ...], repair: bool, cache: Path, as_json: bool) -> None:
    """Look at every byte of FEATURES, or of the whole cache; exit code 1 where something is damaged.

    \b
    Examples: python pipeline.py cache verify
              python pipeline.py cache verify photos --repair
    """
    from extract.store.verify import verify

    with progress_bar() as bar:
        found = verify(features, cache, repair=repair, progress=bar)
    print_json(found) if as_json else echo_verified(found, repair=repair)
    sys.exit(0 if all(problem["repaired"] for problem in found["problems"]) else 1)


@cache.command("gc")
@click.argument("features", nargs=-1)
@click.option("--delete/--dry-run", default=False, help="Delete the files, or only list them.")
@click.option("--unfinished", is_flag=True, help="Also the rows of extractions that did not come to their end.")
@cache_option
@as_json
def cache_gc(features: tuple[str, ...], delete: bool, unfinished: bool, cache: Path, as_json: bool) -> None:
    """List what FEATURES, or the whole cache, keep in vain, or delete it: unused shards, what killed runs left.

    \b
    Example: python pipeline.py cache gc --delete
    """
    from extract.store.housekeeping import collect_garbage

    found = collect_garbage(features, cache, delete=delete, unfinished=unfinished)
    print_json(found) if as_json else echo_garbage(found)


@cache.command("rm")
@click.argument("features", nargs=-1, required=True)
@click.option("--all", "every", is_flag=True, help="All the feature sets of a NAME.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask. Without a terminal nobody is asked.")
@cache_option
@as_json
def cache_rm(features: tuple[str, ...], every: bool, yes: bool, cache: Path, as_json: bool) -> None:
    """Remove whole feature sets: NAME, or NAME/KEY where a name has several.

    \b
    Example: python pipeline.py cache rm photos/661e6f
    """
    from extract.store.housekeeping import choose_to_remove, remove, size_of

    chosen = choose_to_remove(features, cache, every=every)
    if not yes and sys.stdin.isatty():
        names = ", ".join(folder.name for folder in chosen)
        click.confirm(f"Remove {names} ({size(size_of(chosen))})?", abort=True, err=True)
    done = remove(chosen)
    print_json(done) if as_json else echo_removed(done)


@cache.command("export")
@click.argument("features")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The file, or folder for npy.")
@click.option("--format", "form", type=click.Choice(["h5", "npy"]), default="h5", help="One HDF5, or npy and CSV.")
@click.option("-l", "--layer", "layers", multiple=True, help="Taps to copy.  [default: all of them]")
@click.option("--overwrite", is_flag=True, help="Replace an older copy.")
@cache_option
@as_json
def cache_export(features: str, output: Path, as_json: bool, **options: Any) -> None:
    """Copy FEATURES for other programs: one plain HDF5 file, or a folder of npy files with rows.csv.

    \b
    Examples: python pipeline.py cache export photos -o photos.h5
              python pipeline.py cache export photos -o photos-npy --format npy -l penultimate
    """
    from extract.store.export import ExportSpec, export

    with progress_bar() as bar:
        done = export(ExportSpec(features, output, **options), bar)
    if as_json:
        print_json(done)
        return
    click.echo(f"{done['path']}: {count(done['rows'], 'row')} of {', '.join(done['layers'])}, {size(done['bytes'])}")


@main.command()
@cache_option
@as_json
def doctor(cache: Path, as_json: bool) -> None:
    """Check this machine: versions, device, image formats, cache, extras.

    \b
    Example: python pipeline.py doctor
    """
    from extract.catalogue import examine

    found = examine(cache)
    if as_json:
        print_json(found)
    else:
        print_table(["what", "found"], found["checks"].items())
        for problem in found["problems"]:
            click.echo(f"Problem: {problem}", err=True)
    sys.exit(1 if found["problems"] else 0)


if __name__ == "__main__":
    main()
