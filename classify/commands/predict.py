"""`predict` and `evaluate`: what a run says of other images."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

import click

from classify.terminal import percent
from extract.console import FOLDER, as_json, loading_options, note_json, root_option, stoppable
from extract.progress import Progress
from extract.spec import COMPILERS
from extract.terminal import count, print_json, print_table, progress_bar

FORMS = ("csv", "jsonl", "parquet")
OUTPUT = click.Path(dir_okay=False, allow_dash=True, path_type=Path)
cached_option = click.option(
    "--cache", type=FOLDER, help="Read the features of images that this feature cache has, instead of computing them."
)
compile_option = click.option(
    "--compile", type=click.Choice(COMPILERS), default="auto", help="Engine that runs the network; auto finds out."
)


def head_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what lets a scikit-learn classifier from a joblib file answer."""
    head = click.option(
        "--sklearn-joblib",
        "head",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Answer by the classifier in this joblib file (fit --sklearn-joblib) in place of the run's own head.",
    )
    return head(click.option("--trust", is_flag=True, help="Load that file: it can run anything.")(command))


@contextmanager
def cores_for_the_network() -> Iterator[None]:
    """Let BLAS take one thread in this process: others, which wait by spinning, cost predictions 6 % (two cores)."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


@click.command()
@click.argument("run")
@click.argument("inputs", nargs=-1)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMS),
    help="Form of the output.  [default: by the ending of -o FILE, else csv]",
)
@click.option("--json", "as_json", is_flag=True, callback=note_json, help="The same as --format jsonl.")
@click.option("-o", "--output", type=OUTPUT, default="-", help="A file; until all answers are there it is FILE.part.")
@click.option("--resume", is_flag=True, help="Go on behind the rows that are in FILE.part already.")
@click.option("--top", type=click.IntRange(1), default=5, help="How many classes to list per image.")
@click.option("--probabilities", is_flag=True, help="Give the probability of every class, too.")
@click.option(
    "--abstain-below",
    type=click.FloatRange(0, 1),
    help="Mark answers of a lower probability.  [default: the run's own threshold]",
)
@click.option("-0", "--null", is_flag=True, help="Paths on stdin end in NUL, as find -print0 writes them.")
@click.option(
    "--self-test", "test", is_flag=True, help="Answer nothing: prove that this machine computes as the fit did."
)
@cached_option
@compile_option
@head_options
@root_option
@loading_options
def predict(run: str, inputs: tuple[str, ...], output: Path, test: bool, **options: Any) -> None:
    """Classify images with a run: files, folders, manifests, tars, or - for paths on stdin; one row per image.

    RUN is a name under runs/, a folder, or a bundle as one .zip.

    \b
    Example: python pipeline.py predict photos new/ --format jsonl -o answers.jsonl
             find new -name '*.jpg' -print0 | python pipeline.py predict photos - -0 -o answers.csv
             python pipeline.py predict photos new/ -o answers.csv --resume
             python pipeline.py predict photos.zip --self-test
    """
    if bool(inputs) == test:
        raise click.UsageError("--self-test takes no INPUTS." if test else "Missing argument 'INPUTS...'.")
    with cores_for_the_network(), stoppable(click.get_current_context()), progress_bar() as bar:
        _test(run, options, bar) if test else _predict(run, inputs, output, options, bar)


def _predict(run: str, inputs: tuple[str, ...], output: Path, options: dict[str, Any], bar: Progress) -> None:
    from classify.listing import images_of
    from classify.outputs import form_of
    from classify.predict import PredictSpec, Target, write_answers

    path = _plain(output)
    lines, form, resume, root, nul = (options.pop(name) for name in ("as_json", "form", "resume", "root", "null"))
    target = Target(path, form_of("jsonl" if lines else form, output), resume)
    images = images_of(inputs, root, sys.stdin.buffer, nul=nul)
    spec = PredictSpec(run, **options)
    if path is not None:
        write_answers(spec, images, target, None, bar)
        return
    with _opened(output) as stream:
        write_answers(spec, images, target, stream, bar)


@contextmanager
def _opened(output: Path) -> Iterator[TextIO]:
    """Open what is there already, or stdout, which stays open; where the last bytes do not go is told, too."""
    from classify.outputs import STREAM_FULL, told

    stream = click.open_file(str(output), "w", encoding="utf-8", errors="surrogateescape")
    try:
        yield cast(TextIO, stream.__enter__())
    finally:
        with told(str(output), STREAM_FULL):
            stream.__exit__(None, None, None)


def _plain(output: Path) -> Path | None:
    """Find the plain file to be written, also behind a link; None for what is there already: pipes, devices."""
    if str(output) == "-" or (output.exists() and not output.is_file()):
        return None
    if not output.is_symlink():
        return output
    # What /dev/stdout leads to may be a file, which others hold open: it must not be replaced, nor the link.
    return None if output.absolute().parts[1] in ("dev", "proc") else output.resolve()


def _test(run: str, options: dict[str, Any], bar: Progress) -> None:
    from classify.predict import PredictSpec, self_test

    known = {name: options[name] for name in ("device", "batch_size", "workers", "compile")}
    done = self_test(PredictSpec(run, **known), bar)
    if options["as_json"]:
        print_json(done)
        return
    said = "features and answers are those of the fit"
    click.echo(f"{run}: {count(done['examples'], 'example')} on {done['device']}: {said}")


@click.command()
@click.argument("run")
@click.argument("data")
@cached_option
@compile_option
@head_options
@root_option
@loading_options
@as_json
def evaluate(run: str, data: str, root: Path, as_json: bool, **options: Any) -> None:
    """Measure a run on other labelled images; where they have splits, on the test (or else validation) split.

    \b
    Example: python pipeline.py evaluate photos new-photos
    """
    from classify.predict import PredictSpec, evaluate_run

    with cores_for_the_network(), progress_bar() as bar:
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
