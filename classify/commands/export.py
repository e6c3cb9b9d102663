"""`export`: a run as one program for other runtimes."""

from pathlib import Path
from typing import Any

import click

from classify.terminal import percent
from extract.console import as_json, loading_options, root_option, stoppable
from extract.terminal import print_json, progress_bar, size


@click.command()
@click.argument("run")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to be written."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["onnx", "torch", "zip"]),
    default="onnx",
    help="ONNX, torch.export's .pt2, or the bundle as one .zip for predict elsewhere.",
)
@click.option("--int8", is_flag=True, help="Quantise the network to int8, and measure on --data what that loses.")
@click.option("--data", help="Images to compare on, in any form of DATA.  [default: a few of our own]")
@click.option("--most", type=click.IntRange(1), default=512, help="How many images of --data to compare on.")
@root_option
@loading_options
@as_json
def export(run: str, as_json: bool, **options: Any) -> None:
    """Write a run as one program that needs none of ours: pixels of cropped images in, probabilities out.

    It is kept only if it answers as predict does: the same labels, and probabilities within 0.0001. RUN is a name
    under runs/, a folder, or a bundle as one .zip.

    \b
    Example: python pipeline.py export photos -o photos.onnx
             python pipeline.py export photos -o photos.pt2 --format torch
             python pipeline.py export photos -o photos-int8.onnx --int8 --data photos
             python pipeline.py export photos -o photos.zip --format zip
    """
    from classify.export.story import ExportSpec, export_run

    spec = ExportSpec(run, **options)
    with stoppable(click.get_current_context()), progress_bar() as bar:
        done = export_run(spec, bar)
    if as_json:
        print_json(done)
        return
    _echo(done)


def _echo(done: dict[str, Any]) -> None:
    """Print what was compared, what int8 loses, and where the file lies."""
    lies = f"{done['path']} ({size(done['bytes'])})"
    if (checked := done["checked"]) is None:
        click.echo(f"Bundle: {lies}")
        return
    shape = " x ".join(map(str, done["input"]))
    click.echo(f"Compared with predict on {checked['n']} images ({checked['on']}): every label is the same,")
    click.echo(f"probabilities differ by {checked['gap']:.1e} at most; {checked['tolerance']:.0e} is allowed.")
    if rounded := checked.get("rounded"):
        click.echo(
            f"Predict itself computes in {rounded['precision']} and the program in fp32: against that {rounded['n']} "
            f"answers differ in {rounded['other_labels']} labels, probabilities by {rounded['gap']:.2g} at most."
        )
    if done["int8"]:
        _echo_int8(done["int8"])
    click.echo(f"Program: {lies}, pixels {shape} uint8 -> {len(done['classes'])} classes")


def _echo_int8(int8: dict[str, Any]) -> None:
    click.echo(
        f"int8: {int8['other_labels']} of {int8['n']} labels are others than in fp32, probabilities differ by "
        f"{int8['gap']:.2g} at most; its ranges are those of {int8['n_ranges']} other images."
    )
    click.echo(f"The program in fp32 takes {size(int8['bytes_fp32'])}.")
    if (accuracy := int8["accuracy"]) is None:
        click.echo("The images have no labels: what that means for the accuracy is not known.")
        return
    lost = percent(accuracy["loss"]).strip()
    click.echo(f"Accuracy: {accuracy['fp32']:.1%} in fp32, {accuracy['int8']:.1%} in int8, a loss of {lost}.")
