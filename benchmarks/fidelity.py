"""What decoders, resizers and precisions do to the features of pretrained networks, beside the reference.

    python -m benchmarks.fidelity [--data DIR] [--quick]

The reference is Pillow's decoder, Pillow's resizing (torchvision's own preset on PIL images, bit by bit) and fp32. Of
each way that is faster: the cosine between its features and the reference's, per image, after the mean feature of the
reference was subtracted from both (without that, any two images look alike). It may be a default where the mean of
the cosines is at least 0.9999 for every network. The figures go to `benchmarks/fidelity.json`, after 5 minutes or
so on two cores; `--quick` takes 40 photos and the two small networks, and only prints.
"""

import argparse
import io
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from benchmarks.image_sets import NETWORKS, ROOT, data_folder, unpack
from benchmarks.real import QUICK
from benchmarks.ways import BATCH, GPU, REFERENCE, SCALED, WAYS, Way, by_pillow, by_simplejpeg, by_torchvision
from classify.bundle import PACKAGES
from extract.decoding.jpeg import eligible
from extract.forward import Extractor, build_extractor
from extract.runners import prepare
from extract.spec import BackboneSpec, ExtractSpec, available_cores
from extract.store.index import versions

ENOUGH = 0.9999
SIDE = 4
"""Large photos are mosaics of so many by so many, and as many times enlarged ones."""


@dataclass(frozen=True)
class Photos:
    """Files, the ways to go, and what of the weights' preset is replaced."""

    name: str
    files: list[bytes]
    ways: tuple[Way, ...] = WAYS
    overrides: tuple[tuple[str, Any], ...] = ()


def photo_sets(files: list[bytes]) -> Iterator[Photos]:
    """Yield the sets: most photos are 256 pixels high, so that only a smaller preset makes them smaller."""
    yield Photos("photos", files)
    yield Photos("photos, 1.4 times smaller", files, overrides=(("resize_size", 183), ("crop_size", 160)))
    yield Photos(f"{SIDE} x {SIDE} photos in one", mosaics(files), SCALED)
    yield Photos(f"photos, {SIDE} times enlarged", enlarged(files[::8]), SCALED)


def mosaics(files: Sequence[bytes], tile: int = 256, times: int = 3) -> list[bytes]:
    """Put photos together, as sharp as they are; each comes in so many mosaics on average."""
    squares = np.stack([image[:tile, :tile] for image in map(by_pillow, files) if min(image.shape[:2]) >= tile])
    rng = np.random.default_rng(0)
    made = []
    for _ in range(times * (len(squares) // SIDE**2)):
        chosen = squares[rng.permutation(len(squares))[: SIDE**2]].reshape(SIDE, SIDE, tile, tile, 3)
        made.append(as_jpeg(chosen.swapaxes(1, 2).reshape(SIDE * tile, SIDE * tile, 3)))
    return made


def enlarged(files: Sequence[bytes]) -> list[bytes]:
    """Enlarge photos, which leaves no detail that a pixel could show."""
    images = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
    return [as_jpeg(np.asarray(i.resize((SIDE * i.width, SIDE * i.height), Image.Resampling.BICUBIC))) for i in images]


def as_jpeg(image: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


VARIANTS: dict[str, Callable[[bytes], bytes]] = {
    "as they are": lambda data: data,
    "progressive": lambda data: as_jpeg(by_pillow(data), progressive=True),
    "grey": lambda data: as_jpeg(np.asarray(Image.open(io.BytesIO(data)).convert("L"))),
    "4:4:4": lambda data: as_jpeg(by_pillow(data), subsampling=0),
    "4:2:2": lambda data: as_jpeg(by_pillow(data), subsampling=1),
    "restarts": lambda data: as_jpeg(by_pillow(data), restart_marker_blocks=4),
}


def equal_decoders(files: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    """Count the files of which each decoder makes the very pixels that Pillow makes."""
    for name, variant in VARIANTS.items():
        varied = [variant(data) for data in files]
        row: dict[str, Any] = {"files": name, "n": len(varied), "eligible": sum(map(eligible, varied))}
        for decode in (by_simplejpeg, by_torchvision):
            row[decode.__name__[3:]] = sum(bool(np.array_equal(decode(data), by_pillow(data))) for data in varied)
        yield row


def features(extractor: Extractor, pixels: Tensor) -> np.ndarray:
    """Compute the penultimate features (N, D) as `extract` does in that precision; fp32 without any shortcut."""
    if extractor.recipe.precision == "fp32":
        run = extractor.exact
    else:
        lane = prepare(extractor, batch_size=BATCH).lane()
        run = lambda batch: {name: rows.cpu().numpy() for name, rows in lane(batch).items()}  # noqa: E731
    return np.concatenate([next(iter(run(batch).values())).astype(np.float64) for batch in pixels.split(BATCH)])


def centred_cosines(got: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the cosine of each row with its reference, less the mean of the references: (N, D), (N, D) -> (N,)."""
    a, b = got - reference.mean(0), reference - reference.mean(0)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def measure(photos: Photos, network: str, data: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each way: how far its pixels and its features are from the reference's."""
    backbone = BackboneSpec(network, str(data / "weights" / NETWORKS[network]), overrides=photos.overrides)
    extractors = {
        precision: build_extractor(ExtractSpec(data="", backbone=backbone, precision=precision, device="cpu"))
        for precision in ("fp32", "bf16")
    }
    preset = extractors["fp32"].recipe.preprocessing
    expected = REFERENCE.pixels(photos.files, preset)
    seen = [(expected, "fp32", features(extractors["fp32"], expected))]
    for way in photos.ways:
        pixels = way.pixels(photos.files, preset)
        known = (rows for others, precision, rows in seen if precision == way.precision and others.equal(pixels))
        rows = next(known, None)
        rows = features(extractors[way.precision], pixels) if rows is None else rows
        seen.append((pixels, way.precision, rows))
        yield {"photos": photos.name, "n": len(pixels), "network": network, "way": way.name} | distance(
            pixels, expected, rows, seen[0][2]
        )


def distance(pixels: Tensor, expected: Tensor, rows: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Return the share of values that differ, the largest difference in grey levels, and the cosines."""
    difference = (pixels.int() - expected.int()).abs()
    cosines = centred_cosines(rows, reference)
    return {
        "pixels_differ": round(float((difference > 0).double().mean()), 6),
        "largest_difference": int(difference.max()),
        "cosine_mean": round(float(cosines.mean()), 7),
        "cosine_min": round(float(cosines.min()), 7),
        "near_enough": bool(cosines.mean() >= ENOUGH),
    }


def report(rows: Sequence[dict[str, Any]], equal: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put the figures under what they were made with; `decision` says of each way whether every network agrees."""
    decision: dict[str, bool] = {}
    for row in rows:
        decision[row["way"]] = decision.get(row["way"], True) and row["near_enough"]
    return {
        "command": "python -m benchmarks.fidelity",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {available_cores()} cores, {GPU or 'no GPU'}",
        "versions": versions((*PACKAGES, "simplejpeg")),
        "enough": ENOUGH,
        "decision": decision,
        "equal_decoders": list(equal),
        "rows": list(rows),
    }


def main() -> int:
    """Measure everything, the cheap networks first."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="holds weights/ and the archives")
    parser.add_argument("--quick", action="store_true", help="40 photos, two small networks; prints, keeps no figures")
    options = parser.parse_args()
    if not (options.data / "weights").is_dir():
        parser.error(f"no weights/ in {options.data}: give --data DIR, or set OFFSHELF_DATA")
    with tempfile.TemporaryDirectory(prefix="offshelf-fidelity-") as work:
        folder = unpack(options.data / "hymenoptera.tar", Path(work))
        files = [path.read_bytes() for path in sorted(folder.glob("*/*/*.jpg"))][:: 10 if options.quick else 1]
    equal = []
    for row in equal_decoders(files):
        equal.append(row)
        print(row, flush=True)
    rows = []
    for network in QUICK[1] if options.quick else NETWORKS:
        for photos in photo_sets(files):
            for row in measure(photos, network, options.data):
                rows.append(row)
                print(row, flush=True)
    found = report(rows, equal)
    print(json.dumps(found["decision"], indent=2))
    if not options.quick:
        (ROOT / "benchmarks" / "fidelity.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
