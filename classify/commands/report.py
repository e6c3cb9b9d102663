"""`report`: the page of a run."""

import webbrowser
from pathlib import Path

import click

from extract.console import as_json
from extract.terminal import print_json


@click.command()
@click.argument("run")
@click.option("--open", "opened", is_flag=True, help="Show it in a browser.")
@as_json
def report(run: str, opened: bool, as_json: bool) -> None:
    """Write the page of a run anew, from the files in its folder, and say where it lies.

    \b
    Example: python pipeline.py report photos --open
    """
    from classify.rebuilt import rebuild

    done = rebuild(run)
    print_json(done) if as_json else click.echo(f"Report: {done['report']}")
    if opened:
        webbrowser.open(Path(done["report"]).resolve().as_uri())
