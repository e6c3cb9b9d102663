"""What is asked for: an extraction, its network and its engine. Imports nothing heavy."""

import math
import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from extract.errors import OptionError, unknown
from extract.recipe import MAX_VIEWS, PENULTIMATE, PRECISIONS, STORES

ENGINES = ("local", "ray")
DECODERS = ("exact", "scaled", "gpu")
COMPILERS = ("auto", "none", "inductor", "openvino")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a feature set may be called: it becomes the name of a folder."""

URL = re.compile(r"(?!file://[^/])[a-z][a-z0-9+.:-]*://\S+")
"""Of a relay; a folder in it begins at the root, as each machine is at work in another."""

STAGES = "stages"
"""Stands among taps for the ends of all stages of the network."""


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """Which network, with which weights, looking at images how: `KIND:NAME`, an enum name, `auto`, `none` or a file.

    `overrides` replaces fields of the weights' own preprocessing.
    """

    model: str = "resnet18"
    weights: str = "auto"
    seed: int = 0
    overrides: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What runs the shards: this machine, or the actors of a Ray cluster, at `address` or a private one here.

    Of Ray alone: how many `actors` (as many as the cluster has room for by default), the `cpus` and `gpus` (also a part
    of one) of each, how often a shard is tried, after how many seconds one counts as hung, and the URL of a `relay` for
    shards of machines that do not see the cache (it may hold a password, and so is not shown).
    """

    name: str = "local"
    address: str | None = None
    actors: int | None = None
    cpus: float = 1.0
    gpus: float | None = None
    retries: int = 3
    shard_timeout_s: float | None = None
    relay: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            unknown("engine", self.name, ENGINES, OptionError)
        if self.name == "local" and any(getattr(self, each.name) != each.default for each in fields(self)):
            said = "an address, actors, their CPUs and GPUs, retries, a time for each shard, a relay are words of Ray"
            raise OptionError(said, remedy="Take them with --engine ray")
        numbers = {"actors": self.actors, "cpus": self.cpus, "gpus": self.gpus, "seconds": self.shard_timeout_s}
        for what, number in numbers.items():
            if number is not None and not 0 < number < math.inf:
                raise OptionError(f"{number:g} {what}", remedy="Take a number above 0")
        if self.retries < 1:
            raise OptionError(f"{self.retries} retries", remedy="Take 1 or more")
        if self.relay is not None and not URL.fullmatch(self.relay):
            remedy = "Write it as in s3://bucket/prefix, gs://bucket/prefix or file:///folder"
            raise OptionError("the relay is no URL", remedy=remedy)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class ExtractSpec:
    """One extraction as the user asked for it.

    What can change a number: `backbone`, `taps`, `precision`, `tf32`, `store`, `decoder`, and the three about views.
    `device` may name several, separated by commas: one process each. No `batch_size`: as many images as the network's
    input size suggests. `compile` is the engine that runs the network; `profile` a file for a trace. `rehash` reads
    every file again, whatever its times say, and every byte of the cache; `retry_failed` computes bad rows again;
    `wait` waits for another extraction of the same features instead of giving up. `only` names by their ids the images
    that are wanted, of all that DATA has: a data set of its own, and so under a `name` of its own. `engine` runs the
    shards. `part` (K, N) is the K-th of N parts of DATA alone, counted from 1: its rows, and no index.
    """

    data: str
    name: str = ""
    root: Path | None = None
    backbone: BackboneSpec = field(default_factory=BackboneSpec)
    taps: tuple[str, ...] = (PENULTIMATE,)
    precision: str = "auto"
    tf32: bool = False
    store: str = "auto"
    decoder: str = "exact"
    views: int = 1
    view_seed: int = 0
    view_flips: bool = True
    cache: Path = Path("cache")
    device: str = "auto"
    batch_size: int | None = None
    workers: int = field(default_factory=available_cores)
    compile: str = "auto"
    profile: Path | None = None
    rehash: bool = False
    retry_failed: bool = False
    wait: bool = False
    only: frozenset[str] | None = None
    engine: EngineSpec = field(default_factory=EngineSpec)
    part: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for kind, known in (("precision", PRECISIONS), ("store", STORES)):
            if getattr(self, kind) not in ("auto", *known):
                unknown(kind, getattr(self, kind), ("auto", *known), OptionError)
        for kind, known in (("decoder", DECODERS), ("compile", COMPILERS)):
            if getattr(self, kind) not in known:
                unknown(kind, getattr(self, kind), known, OptionError)
        if not 1 <= self.views <= MAX_VIEWS:
            raise OptionError(f"{self.views} views of an image", remedy=f"Take --views 1 to {MAX_VIEWS}")
        if self.view_seed < 0:
            raise OptionError(f"{self.view_seed} as the seed of views", remedy="Take 0 or more")
        if self.workers < 1 or (self.batch_size is not None and self.batch_size < 1):
            raise OptionError(f"{self.workers} workers, batches of {self.batch_size}", remedy="Take 1 or more")
        _check_share(self)


def _check_share(spec: ExtractSpec) -> None:
    """Raise OptionError unless the name fits, and what share of DATA is wanted."""
    if spec.name and not NAME.fullmatch(spec.name):
        remedy = "Take letters, digits, dot, dash and underscore, 100 at most: --name NAME"
        raise OptionError(f"{spec.name!r} is no name", remedy=remedy)
    if spec.only is not None and not spec.name:
        remedy = "Name them: they are a data set of their own"
        raise OptionError("some images under the name of all", remedy=remedy)
    if spec.part is not None and not 1 <= spec.part[0] <= spec.part[1]:
        raise OptionError(f"part {spec.part[0]} of {spec.part[1]}", remedy="Count parts from 1: 1/8 to 8/8")
