"""`layers`, `models` and `doctor`: what there is to work with."""

import sys
from pathlib import Path
from typing import Any

import click

from extract.console import as_json, cache_option
from extract.terminal import print_json, print_table


@click.command()
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


@click.command()
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
        [m["model"], f"{m['parameters'] / 1e6:.1f} M", f"{m['giga_ops']:.2f}", m["top1"] or "", _weights(m)]
        for m in found["models"]
    ]
    print_table(["model", "parameters", "GMAC", "ImageNet top-1 %", "weights (* on this machine)"], rows)


def _weights(model: dict[str, Any]) -> str:
    return ", ".join(f"{name} *" if name in model["local"] else name for name in model["weights"])


@click.command()
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
