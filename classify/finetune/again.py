"""Extracting the images of a feature set once more: the same looks at them, with other taps, weights or views."""

from dataclasses import asdict
from pathlib import Path

from extract.images import DECODERS
from extract.spec import BackboneSpec, ExtractSpec
from extract.store.reader import FeatureSet

NAME_LENGTH = 100
"""Characters that a name may have."""


def extraction_again(features: FeatureSet, data: str, root: Path | None, suffix: str) -> ExtractSpec:
    """Return the extraction that made a feature set, of images that are now in `data`, beside it in the same cache.

    Backbone, weights, preprocessing, decoder and precision are those of the features; views, device and what else
    changes no number of a single look are not. `suffix` gives it a name of its own: the features are to be found by
    theirs as before.
    """
    recipe = features.recipe
    [decoder] = [name for name, policy in DECODERS.items() if policy == recipe.decoder]
    overrides = tuple(asdict(recipe.preprocessing).items())
    return ExtractSpec(
        data=data,
        name=beside(features, suffix),
        root=root,
        backbone=BackboneSpec(recipe.model, str(features.weights_path), overrides=overrides),
        taps=tuple(tap.name for tap in recipe.taps),
        precision=recipe.precision,
        tf32=recipe.tf32,
        store=recipe.store,
        decoder=decoder,
        cache=features.folder.parent.parent,
        wait=True,
    )


def beside(features: FeatureSet, suffix: str) -> str:
    """Name a feature set that is made of another one."""
    return f"{features.folder.parent.name[: NAME_LENGTH - len(suffix)]}{suffix}"
