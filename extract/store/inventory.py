"""What a cache holds, for people and scripts."""

import json
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from extract.errors import StoreError
from extract.record import Status
from extract.store import files, index, shards
from extract.store.damages import damaged
from extract.store.folders import list_folders, open_features
from extract.store.reader import SHARDS, FeatureSet
from extract.store.sealed import open_sealed


def inventory(cache: Path) -> dict[str, Any]:
    """List the feature sets of a cache, the recipes of one data set together and the newest of them last.

    Damaged ones stand apart, and so do those whose first extraction did not come to its end.
    """
    sound, broken, unfinished = [], [], []
    for folder in list_folders(cache):
        if not folder.index.exists():
            unfinished.append({"features": folder.name, "path": str(folder.path), "bytes": files.bytes_in(folder.path)})
            continue
        try:
            sound.append(_overview(FeatureSet(folder.index)))
        except StoreError as error:
            broken.append({"features": folder.name, "path": str(folder.index), "what": error.what})
    sound.sort(key=lambda each: (each["features"].partition("/")[0], -each["age_s"]))
    return {"cache": str(cache), "feature_sets": sound, "damaged": broken, "unfinished": unfinished}


def describe(features: str, cache: Path) -> dict[str, Any]:
    """Describe one feature set: the overview, all layers, its recipe, its shards and who wrote them, and every bad row.

    Looks at every byte of the index, and of the shards at no more than what they say of themselves.
    """
    opened = open_features(features, cache)
    bad = [
        {"id": opened.ids[i], "status": Status.NAMES[opened.status[i]], "reason": opened.errors[i]}
        for i in np.flatnonzero(opened.status)
    ]
    return {
        **_overview(opened),
        "shapes": {layer: list(shape) for layer, shape in opened.shapes.items()},
        "recipe": json.loads(opened.recipe.to_json()),
        "versions": _json(opened.attributes.get("versions")),
        "shards": _shards(opened),
        "writers": _writers(opened),
        "label_counts": _counts(opened.label_names[label] if label >= 0 else "" for label in opened.labels.tolist()),
        "split_counts": _counts(opened.splits),
        "bad_rows": bad,
    }


def _overview(features: FeatureSet) -> dict[str, Any]:
    return {
        "features": features.name,
        "key": features.recipe.key,
        "path": str(features.path),
        "source": features.source,
        "model": features.recipe.model,
        "layers": features.layers,
        "views": features.views,
        "classes": len(features.label_names),
        "rows": len(features),
        "bad": int((features.status != Status.OK).sum()),
        "bytes": files.bytes_in(features.folder),
        "created": features.created,
        "age_s": _age_s(features),
    }


def _age_s(features: FeatureSet) -> int:
    """Seconds since the index was made."""
    try:
        made = datetime.fromisoformat(features.created).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise damaged(features.path, index.KIND, "it does not say when it was made") from error
    return max(0, int((datetime.now(UTC) - made).total_seconds()))


def _shards(features: FeatureSet) -> list[dict[str, Any]]:
    """Describe the shards that the index names; rows that no image has any more are not `used`."""
    places = np.stack(features.places)
    rows_used = np.unique(places[:, places[0] != index.NO_SHARD], axis=1)[0]
    used = np.bincount(rows_used, minlength=len(features.shards)).tolist()
    return [
        {"name": name, "rows": rows, "used": n, "bytes": n_bytes, "sha256": digest}
        for (name, digest, n_bytes, rows), n in zip(features.shards, used, strict=True)
    ]


def _writers(features: FeatureSet) -> list[dict[str, Any]]:
    """Tell what computed the rows, versions and device, with the shards and rows of each."""
    n_shards, n_rows = Counter[str](), Counter[str]()
    for name, _, _, rows in features.shards:
        file, table = open_sealed(features.folder / SHARDS / name, shards.KIND)
        file.close()
        writer = str(table.attributes.get("writer", ""))
        n_shards[writer] += 1
        n_rows[writer] += rows
    return [{"writer": _json(writer), "shards": n, "rows": n_rows[writer]} for writer, n in n_shards.most_common()]


def _json(text: Any) -> dict[str, Any]:
    """Read a record in JSON; {} where there is none."""
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _counts(names: Iterable[str]) -> dict[str, int]:
    """Count images by name, sorted; "" stands for none."""
    return dict(sorted(Counter(names).items()))
