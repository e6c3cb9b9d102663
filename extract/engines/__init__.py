"""Engines: what runs the shards of a plan. An engine knows shards and workers and nothing of images.

An engine takes the records of a plan, shard by shard, computes their rows into shards of its own cut, none larger than
those, and yields receipts in any order. It ends with KeyboardInterrupt once Ctrl-C has written what was done.
"""

from collections.abc import Callable, Generator

from extract.devices import device_names
from extract.engines import local, processes
from extract.engines.local import probe
from extract.shard import Receipt
from extract.spec import ExtractSpec

__all__ = ["engine_of", "probe"]

Engine = Callable[..., Generator[Receipt, None, None]]


def engine_of(spec: ExtractSpec) -> Engine:
    """Return the engine that was asked for; of this machine the one for the devices that were."""
    if spec.engine.name == "ray":
        from extract.engines.ray import run  # needs an extra

        return run
    return local.run if len(device_names(spec.device)) == 1 else processes.run
