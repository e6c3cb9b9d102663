"""Generated data for tests: a small folder of class folders, and a spec that needs no weights file."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from extract.recipe import Recipe, view_of
from extract.spec import BackboneSpec, ExtractSpec
from extract.store import FeatureSet
from extract.store.shards import read_shard

SIZE_PX = (40, 36)


def picture(seed: int, size: tuple[int, int] = SIZE_PX) -> Image.Image:
    """Blocks of colour, another picture for each seed; smooth enough that JPEG changes little."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.BILINEAR)


def put(path: Path, seed: int) -> Path:
    """Write one picture in the format that the name tells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed).save(path)
    return path


def png(seed: int = 0) -> bytes:
    """Return one picture as the bytes of a PNG file."""
    file = io.BytesIO()
    picture(seed).save(file, format="PNG")
    return file.getvalue()


def tiny_folder(root: Path, *, classes: Sequence[str] = ("cat", "dog"), per_class: int = 4, seed: int = 0) -> Path:
    """Class folders of PNG and JPEG files, all of them different."""
    for number, name in enumerate(classes):
        for i in range(per_class):
            put(root / name / f"{i:02}.{('png', 'jpg')[i % 2]}", seed + number * per_class + i)
    return root


def tiny_spec(data: Path | str, cache: Path, *, weights: str = "none", **changes: Any) -> ExtractSpec:
    """An extraction by the built-in architecture with seeded random weights, on the CPU."""
    known = {"taps": ("layer1", "penultimate"), "device": "cpu", "workers": 2, **changes}
    backbone = known.pop("backbone", BackboneSpec("builtin", weights))
    return ExtractSpec(data=str(data), cache=cache, backbone=backbone, **known)


def features_of(done: dict[str, Any]) -> FeatureSet:
    """The feature set that a call of `extract` made."""
    return FeatureSet(Path(done["path"]))


def rows_of(features: FeatureSet, layer: str = "penultimate") -> dict[str, np.ndarray]:
    """Every row by its id."""
    return dict(zip(features.ids, features.read(layer), strict=True))


def in_all_views(features: FeatureSet, tap: str, rows: np.ndarray | None = None) -> np.ndarray:
    """Rows of one tap in each of its V views: (n, V, D) or (n, V, C, H, W) float32."""
    return np.stack([features.read(view_of(tap, view), rows) for view in range(features.views)], 1)


def assert_same_rows(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Same ids and rows, up to what the size of a batch changes in the last bits; NaN only where NaN is due."""
    assert got.keys() == expected.keys()
    for name, row in expected.items():
        np.testing.assert_allclose(got[name], row, rtol=1e-5, atol=1e-6, err_msg=name)


def rows_in(shard: Path) -> int:
    """The number of rows of a shard in its place in a cache, after checking it whole."""
    recipe = Recipe.from_json((shard.parent.parent / "recipe.json").read_text())
    return len(read_shard(shard, recipe.key).status)


def files_in(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder with its inode and time of change: equal when nothing was written."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}
