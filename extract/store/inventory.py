"""What a cache holds, for people and scripts."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from extract.errors import StoreError
from extract.spec import Status
from extract.store.reader import FeatureSet, list_features, open_features


def inventory(cache: Path) -> dict[str, Any]:
    """List the feature sets of a cache with model, taps, rows, bad rows, bytes and age; damaged ones apart."""
    sound, damaged = [], []
    for found in list_features(cache):
        try:
            sound.append(_overview(FeatureSet(found.path)))
        except StoreError as error:
            damaged.append({"features": f"{found.name}/{found.key}", "path": str(found.path), "what": error.what})
    return {"cache": str(cache), "feature_sets": sound, "damaged": damaged}


def describe(features: str, cache: Path) -> dict[str, Any]:
    """Describe one feature set: the overview, its recipe, and every bad row with its reason."""
    opened = open_features(features, cache)
    bad = [
        {"id": opened.ids[i], "status": Status.NAMES[opened.status[i]], "reason": opened.errors[i]}
        for i in np.flatnonzero(opened.status)
    ]
    return {**_overview(opened), "recipe": json.loads(opened.recipe.to_json()), "bad_rows": bad}


def _overview(features: FeatureSet) -> dict[str, Any]:
    return {
        "features": features.name,
        "key": features.recipe.key,
        "path": str(features.path),
        "source": features.source,
        "model": features.recipe.model,
        "layers": features.layers,
        "classes": len(features.label_names),
        "rows": len(features),
        "bad": int((features.status != Status.OK).sum()),
        "bytes": sum(path.stat().st_size for path in features.folder.rglob("*") if path.is_file()),
        "created": features.created,
    }
