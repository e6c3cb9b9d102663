"""Everything that changes a feature's value: taps, preprocessing, the recipe and its key. Imports nothing heavy."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from extract.errors import OffshelfError, OptionError, TapError

SCHEMA_VERSION = 2
"""Raised by any change to feature values, and so in every key."""

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "hamming", "box", "nearest-exact")
PRECISIONS = ("fp32", "bf16", "fp16")
STORES = ("float32", "float16")
MAX_VIEWS = 64

DEFAULT_POOL = "avg"
MAP_POOL = "map"
"""The pool that leaves a map as it is."""

PENULTIMATE = "penultimate"


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
