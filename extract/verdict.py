"""The verdict on a run: how fast it was, what held it back, and the option that would help."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from extract import images
from extract.devices import computes_bf16, device_names
from extract.recipe import Recipe
from extract.shard import Receipt, Stages
from extract.spec import ExtractSpec, available_cores


def judge(receipts: Sequence[Receipt], spec: ExtractSpec, recipe: Recipe) -> dict[str, Any]:
    """Sum up the receipts of a run: images per second, the share of each stage, the bottleneck and a hint.

    A stage's seconds are shared out over the threads and processes that work on it side by side: the stage with the
    largest share is the one that the others wait for.
    """
    stages = Stages()
    for receipt in receipts:
        stages.add(receipt.stages.seconds)
    total = sum(stages.seconds.values())
    bottleneck = max(stages.seconds, key=stages.seconds.__getitem__) if total else None
    return {
        "images_per_s": _speed(receipts),
        "stages": {name: round(seconds / total, 3) if total else 0.0 for name, seconds in stages.seconds.items()},
        "bottleneck": bottleneck,
        "hint": HINTS[bottleneck](spec, recipe) if bottleneck else None,
        "runner": receipts[0].runner if receipts else None,
    }


def _speed(receipts: Sequence[Receipt]) -> float | None:
    """Images per second between the first batch that was asked for and the last shard that was written."""
    if not receipts:
        return None
    began, ended = min(receipt.span[0] for receipt in receipts), max(receipt.span[1] for receipt in receipts)
    return round(sum(receipt.rows for receipt in receipts) / max(ended - began, 1e-9), 1)


def _read(spec: ExtractSpec, recipe: Recipe) -> str:
    del spec, recipe
    return "images come slowly from the disk: a faster disk, or tar files instead of many small ones"


def _decode(spec: ExtractSpec, recipe: Recipe) -> str:
    ways = []
    if images.simplejpeg is None:
        ways.append('pip install "offshelf[turbo]" (JPEG decoded a third faster, the same pixels)')
    if spec.workers < available_cores():
        ways.append(f"--workers {available_cores()}")
    if recipe.decoder == images.DECODERS["exact"]:
        ways += ["--decoder gpu (other pixels)"] if torch.cuda.is_available() else []
        ways += ["--decoder scaled, for large photos (other pixels)"]
    return f"decoding is the limit: {', '.join([*ways, 'smaller images'])}"


def _transfer(spec: ExtractSpec, recipe: Recipe) -> str:
    del spec, recipe
    return "the way to the device, and resizing there, are the limit: smaller images"


def _forward(spec: ExtractSpec, recipe: Recipe) -> str:
    ways = []
    if torch.cuda.is_available() and device_names(spec.device)[0] == "cpu":
        ways.append("--device cuda")
    elif not torch.cuda.is_available():
        ways.append("a GPU")
    if recipe.precision == "fp32" and computes_bf16(torch.device(device_names(spec.device)[0])):
        ways.append("--precision bf16 (other features)")
    if spec.compile == "none":
        ways.append("--compile auto")
    return f"the network is the limit: {', '.join([*ways, 'a smaller network'])}"


def _write(spec: ExtractSpec, recipe: Recipe) -> str:
    del spec
    ways = ["--store float16"] if recipe.store == "float32" else []
    return f"writing is the limit: {', '.join([*ways, 'fewer or smaller taps', 'a faster disk'])}"


HINTS: dict[str, Callable[[ExtractSpec, Recipe], str]] = {
    "read": _read,
    "decode": _decode,
    "transfer": _transfer,
    "forward": _forward,
    "write": _write,
}
