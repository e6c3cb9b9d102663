"""`demo`: the main job once, offline."""

from pathlib import Path

import click

from classify.terminal import echo_fit
from extract.console import FOLDER, as_json, cache_option
from extract.summaries import echo_extract
from extract.terminal import print_json, progress_bar


@click.command()
@cache_option
@click.option("--out", type=FOLDER, default=Path("runs/demo"), help="Folder of the run.")
@as_json
def demo(cache: Path, out: Path, as_json: bool) -> None:
    """Do the main job once, offline: real digit images, the built-in backbone, a linear classifier.

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
