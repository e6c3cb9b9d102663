"""`compare`: runs side by side."""

from pathlib import Path

import click

from classify.terminal import echo_compare
from extract.console import as_json
from extract.terminal import print_json


@click.command()
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
