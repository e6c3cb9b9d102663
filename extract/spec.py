"""The words that every part shares: records, taps, preprocessing, the recipe and its key. Imports nothing heavy."""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from extract.errors import OffshelfError, OptionError, TapError, unknown

SCHEMA_VERSION = 2
"""Raised by any change to feature values, and so in every key."""

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "hamming", "box", "nearest-exact")
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""The names a user gives a split, and ours."""

PRECISIONS = ("fp32", "bf16", "fp16")
STORES = ("float32", "float16")
ENGINES = ("local", "ray")
DECODERS = ("exact", "scaled", "gpu")
COMPILERS = ("auto", "none", "inductor", "openvino")
MAX_VIEWS = 64
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a feature set may be called: it becomes the name of a folder."""

DEFAULT_POOL = "avg"
MAP_POOL = "map"
"""The pool that leaves a map as it is."""

PENULTIMATE = "penultimate"
STAGES = "stages"


class Status:
    """What became of a row, as stored (uint8). Only OK rows have features; the others hold NaN and a reason.

    Rows that were KILLED are computed again by the next run: the machine was the cause, and not the image.
    """

    OK = 0
    MISSING = 1
    EMPTY = 2
    NOT_AN_IMAGE = 3
    DAMAGED = 4
    TOO_LARGE = 5
    NOT_FINITE = 6
    TOO_SLOW = 7
    CRASHED = 8
    KILLED = 9

    NAMES = (
        "ok",
        "missing",
        "empty",
        "not an image",
        "damaged",
        "too large",
        "not finite",
        "too slow",
        "crashed the decoder",
        "killed",
    )


@dataclass(frozen=True, slots=True)
class Record:
    """One image: where its bytes are, and what is known of it.

    `id` is a POSIX path relative to the source. The bytes are the file `path`, or the `span` (offset, size) of it where
    the image is a member of a tar. `label`, `split` and `group` are None where the source says nothing.
    """

    id: str
    path: str
    label: str | None = None
    split: str | None = None
    group: str | None = None
    span: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a row has no features: a `Status` other than OK, and the reason in words."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Tap:
    """A layer whose output is kept, and the pool that makes a row of it. Written `layer` or `layer:pool`.

    `layer` is a torchvision node name, or `penultimate`; pools may carry an argument, as in `layer3:grid:4`. A row is
    (D,), or (C, H, W) for the pool `map`.
    """

    layer: str
    pool: str = DEFAULT_POOL

    @classmethod
    def parse(cls, text: str) -> "Tap":
        """Read `NAME[:POOL]`."""
        layer, _, pool = text.partition(":")
        if not layer or "/" in text or "@" in text or text.endswith(":"):
            raise TapError(f"{text!r} is not NAME or NAME:POOL", remedy="Write for example layer3 or layer3:gem")
        return cls(layer, pool or DEFAULT_POOL)

    @property
    def name(self) -> str:
        """Its name in files and tables: the layer, and the pool where that is not the default."""
        return self.layer if self.pool == DEFAULT_POOL else f"{self.layer}:{self.pool}"

    @property
    def is_map(self) -> bool:
        """Whether it is stored unpooled, for networks that are trained on from there."""
        return self.pool == MAP_POOL


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From a decoded RGB image to the network's input: resize the shorter side, crop the centre, standardise.

    Sizes are in pixels; `mean` and `std` are per channel on the scale 0..1.
    """

    resize_size: int
    crop_size: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            remedy = f"Take one of {', '.join(INTERPOLATIONS)}"
            raise OptionError(f"no interpolation {self.interpolation!r}", remedy=remedy)
        if not (0 < self.resize_size <= 4096 and 0 < self.crop_size <= 4096):
            raise OptionError(f"sizes of {self.resize_size} and {self.crop_size} pixels", remedy="Take 1 to 4096")
        if self.crop_size > self.resize_size:
            said = f"a crop of {self.crop_size} pixels from a side of {self.resize_size}"
            raise OptionError(said, remedy="Take --crop-size up to --resize-size")
        numbers = all(map(math.isfinite, (*self.mean, *self.std)))
        if len(self.mean) != 3 or len(self.std) != 3 or not numbers or min(self.std) <= 0:
            said = "mean and std are three finite numbers each, std above 0"
            raise OptionError(said, remedy="Write them as in 0.5,0.5,0.5")

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Preprocessing":
        """Read what `asdict` wrote, JSON lists included."""
        return cls(**{**value, "mean": tuple(value["mean"]), "std": tuple(value["std"])})


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that changes a feature's value, and nothing else; its hash is the key.

    `nodes` says for each tap which node of the network it is: `penultimate` differs between families. `views` counts
    the looks at one image (see `extract.views`); without more than the centre `view_seed` is 0, as nothing is drawn.
    Without `view_flips` none of them is mirrored.
    """

    model: str
    weights_sha256: str
    taps: tuple[Tap, ...]
    nodes: tuple[str, ...]
    preprocessing: Preprocessing
    decoder: str
    precision: str
    store: str
    tf32: bool = False
    views: int = 1
    view_seed: int = 0
    view_flips: bool = True
    schema_version: int = SCHEMA_VERSION

    @property
    def key(self) -> str:
        """SHA-256 of the recipe as canonical JSON, in hex."""
        return hashlib.sha256(self.to_json(indent=None).encode()).hexdigest()

    def to_json(self, *, indent: int | None = 2) -> str:
        """Write the recipe as JSON, keys sorted."""
        value = asdict(self)
        if self.view_flips:
            del value["view_flips"]  # caches from before it could be said keep their keys
        return json.dumps(value, sort_keys=True, indent=indent, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """Read what `to_json` wrote; raises ValueError, TypeError or KeyError on anything else.

        That is also on a recipe of another schema version: what it says has another meaning here.
        """
        value = json.loads(text)
        _check_fields(value)
        try:
            value["taps"] = tuple(map(_tap_of, value["taps"]))
            value["preprocessing"] = Preprocessing.from_dict(value["preprocessing"])
        except (OffshelfError, OverflowError) as error:
            raise ValueError(str(error)) from error
        value["nodes"] = tuple(value["nodes"])
        return cls(**value)

    def differences(self, other: "Recipe") -> list[str]:
        """Say in words what another recipe has otherwise, as in `resize_size 256 -> 232`; [] for equal ones."""
        mine, theirs = _facts(self), _facts(other)
        return [f"{name} {theirs.get(name)} -> {mine[name]}" for name in mine if mine[name] != theirs.get(name)]

    @property
    def layers(self) -> list[str]:
        """What is stored of every image: the name of each tap, then of each tap in each further view."""
        return [view_of(tap.name, view) for view in range(self.views) for tap in self.taps]

    @property
    def primary(self) -> Tap:
        """The tap behind `/features`: the penultimate one where it is kept, else the last; a map only if all are."""
        pooled = [tap for tap in self.taps if not tap.is_map] or self.taps
        return next((tap for tap in pooled if tap.layer == PENULTIMATE), pooled[-1])


FIELDS = {
    **dict.fromkeys(("model", "weights_sha256", "decoder", "precision", "store"), str),
    **dict.fromkeys(("taps", "nodes"), list),
    **dict.fromkeys(("views", "view_seed", "schema_version"), int),
    "preprocessing": dict,
    "tf32": bool,
}
"""The fields of a recipe in JSON, and the type of each."""


def _check_fields(value: dict[str, Any]) -> None:
    """Raise ValueError, TypeError or KeyError unless JSON has the fields of a recipe, each of its type."""
    if value["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"a recipe of version {value['schema_version']!r:.20}, and not {SCHEMA_VERSION}")
    if wrong := [name for name, kind in FIELDS.items() if type(value[name]) is not kind]:
        raise TypeError(f"the field {wrong[0]!r} is of another type")
    if value["precision"] not in PRECISIONS or value["store"] not in STORES:
        raise ValueError(f"it computes {value['precision']!r:.20} and stores {value['store']!r:.20}")
    if not 1 <= value["views"] <= MAX_VIEWS or value["view_seed"] < 0:
        raise ValueError(f"{value['views']} views with the seed {value['view_seed']}")
    if value.get("view_flips", False) is not False:
        raise ValueError("view_flips is only written where it is false")
    if not all(isinstance(node, str) for node in value["nodes"]) or not 0 < len(value["taps"]) == len(value["nodes"]):
        raise ValueError("its taps and nodes do not belong together")


def _tap_of(said: dict[str, str]) -> Tap:
    """Read one tap, whose name says all of it."""
    if [type(said["layer"]), type(said["pool"])] != [str, str]:
        raise TypeError("a tap is named by text")
    tap = Tap(**said)
    if Tap.parse(tap.name) != tap:
        raise ValueError(f"no tap is called {tap.name!r:.100}")
    return tap


def view_of(layer: str, view: int) -> str:
    """Name a layer as seen in one view: `layer4`, and `layer4@1` for the first view after the centre."""
    return f"{layer}@{view}" if view else layer


def _facts(recipe: Recipe) -> dict[str, str]:
    """Put a recipe into short words, field by field."""
    facts = asdict(recipe) | {"weights sha256": recipe.weights_sha256[:12]} | asdict(recipe.preprocessing)
    facts["layers"] = ", ".join(
        tap.name if tap.layer in (node, PENULTIMATE) else f"{tap.name} ({node})"
        for tap, node in zip(recipe.taps, recipe.nodes, strict=True)
    )
    for name in ("weights_sha256", "preprocessing", "taps", "nodes"):
        del facts[name]
    return {name: _in_words(value) for name, value in facts.items()}


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(f"{part:g}" for part in value) if isinstance(value, tuple) else str(value)


def weights_digest(arrays: Mapping[str, Any]) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of contiguous numpy arrays, in the order of names, in hex.

    Dtypes are called as PyTorch calls them.
    """
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        total.update(f"{name} torch.{array.dtype} {tuple(array.shape)}\n".encode())
        total.update(array.reshape(-1).view("uint8").data)
    return total.hexdigest()


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
    of one) of each, how often a shard is tried, and after how many seconds one counts as hung.
    """

    name: str = "local"
    address: str | None = None
    actors: int | None = None
    cpus: float = 1.0
    gpus: float | None = None
    retries: int = 3
    shard_timeout_s: float | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            unknown("engine", self.name, ENGINES, OptionError)
        if self.name == "local" and any(getattr(self, each.name) != each.default for each in fields(self)):
            said = "an address, actors, their CPUs and GPUs, retries and a time for each shard are words of Ray"
            raise OptionError(said, remedy="Take them with --engine ray")
        numbers = {"actors": self.actors, "cpus": self.cpus, "gpus": self.gpus, "seconds": self.shard_timeout_s}
        for what, number in numbers.items():
            if number is not None and not 0 < number < math.inf:
                raise OptionError(f"{number:g} {what}", remedy="Take a number above 0")
        if self.retries < 1:
            raise OptionError(f"{self.retries} retries", remedy="Take 1 or more")


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
