"""The trunk's cache: the maps at a cut, in some views of each image, made by `extract` and kept like any features.

What a trunk says of an image never changes while only what is above it trains; so it is computed once, by the same code
and under the same guards as features are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from classify.finetune.again import extraction_again
from extract.backbones import read_state
from extract.errors import FitError
from extract.parts import trunk_digest
from extract.progress import Progress
from extract.recipe import MAP_POOL, Recipe, Tap
from extract.record import Status
from extract.run import dry_run, extract
from extract.spec import ExtractSpec, available_cores
from extract.store.reader import FeatureSet

VIEW_SEED = 0
SUFFIX = "-maps"


@dataclass(frozen=True)
class MapSpec:
    """Which maps are wanted: those of the layer `cut`, in so many `views`, among them mirror images if `flips`.

    `data` and `root` say where the images are, as `extract` takes them. Kept in float16, maps take half the room and
    half the reading; in float32 they are what the trunk says to the last bit but for how it is run.
    """

    cut: str
    data: str
    root: Path | None = None
    views: int = 1
    flips: bool = True
    store: str = "float16"
    device: str = "auto"
    workers: int = field(default_factory=available_cores)

    @property
    def layer(self) -> str:
        """The tap of the maps."""
        return Tap(self.cut, MAP_POOL).name


def trunk_maps(features: FeatureSet, spec: MapSpec, progress: Progress | None = None) -> FeatureSet:
    """Bring the maps of a network's trunk up to date, beside the features that the network computed; open them.

    What the cache has is not computed again. Preprocessing, decoder and precision are those of the features. Raises
    FitError where these are not the maps of that network, and whatever `extract` raises: StoreError says how many GB
    are needed where the disk has no room, Interrupted what is kept.
    """
    features.check_weights()
    done = extract(_extraction(features, spec), progress)
    maps = FeatureSet(Path(done["path"])).check()
    _check_trunk(features, maps, spec.cut)
    return maps


def maps_seconds(features: FeatureSet, spec: MapSpec, progress: Progress | None = None) -> float:
    """Say about how long `trunk_maps` would take, by a short probe: 0 where the cache has all of them."""
    return float(dry_run(_extraction(features, spec), progress)["estimated_s"])


def map_rows(maps: FeatureSet, features: FeatureSet, rows: np.ndarray) -> np.ndarray:
    """Find the maps of images, by their content: rows (n,) of the features -> rows (n,) of the maps, int64.

    Raises FitError where an image has none: it is gone, was changed or is not readable now.
    """
    good = np.flatnonzero(maps.status == Status.OK)
    known = dict(zip((digest.tobytes() for digest in maps.sha256[good]), good.tolist(), strict=True))
    found = [known.get(digest.tobytes()) for digest in features.sha256[rows]]
    if lost := [features.ids[row] for row, at in zip(rows.tolist(), found, strict=True) if at is None]:
        said = f"{len(lost)} of {len(rows)} images that have features are gone, were changed or cannot be read now"
        remedy = "Say where they are with --data DATA, or extract the features again"
        raise FitError(said, where=lost[0], remedy=remedy)
    return np.array(found, np.int64)


def _extraction(features: FeatureSet, spec: MapSpec) -> ExtractSpec:
    return replace(
        extraction_again(features, spec.data, spec.root, SUFFIX),
        taps=(spec.layer,),
        store=spec.store,
        views=spec.views,
        view_seed=VIEW_SEED,
        view_flips=spec.flips,
        device=spec.device,
        workers=spec.workers,
    )


def _check_trunk(features: FeatureSet, maps: FeatureSet, cut: str) -> None:
    """Prove that maps are of the network, and of the looks at images, that the features are of; raises FitError."""
    maps.check_weights()
    trunk = trunk_digest(features.recipe, read_state(features.weights_path), cut)
    if trunk != maps.recipe.weights_sha256 or _looks(features.recipe) != _looks(maps.recipe):
        said = "the maps are not those of the network that computed the features"
        raise FitError(said, where=maps.name, remedy="Remove them with cache rm, and fit again")


def _looks(recipe: Recipe) -> Sequence[Any]:
    return recipe.model, recipe.preprocessing, recipe.decoder, recipe.precision, recipe.tf32
