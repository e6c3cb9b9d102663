"""Whether the rows are the reference's: those of the naive script on the same files, and of plain PyTorch on the same
pixels.

Run as a program it prints the latter for one network.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from benchmarks.extract import photos
from benchmarks.extract.environment import state_file
from benchmarks.extract.harness import Figures, Goal, Numbers, Place, emptied, ours, program, timed
from benchmarks.extract.rivals.common import HEADS, names
from benchmarks.extract.rivals.common import photos as listed
from extract.store import FeatureSet

IMAGES, LARGE = 160, 24
RELATIVE, COSINE = 1e-5, 0.9999
COMPILERS = ("none", "inductor", "openvino")
VARIANTS = {
    "fp32": ("--precision", "fp32", "--compile", "none"),
    "fp32 openvino": ("--precision", "fp32", "--compile", "openvino"),
    "bf16": ("--precision", "bf16", "--compile", "none"),
    "fp32 scaled": ("--precision", "fp32", "--compile", "none", "--decoder", "scaled"),
}
DEFAULT = "fp32"


def equal(place: Place) -> Figures:
    """Compare with the naive script on files, and with plain PyTorch on pixels."""
    weights = {network: weights_of(network, place.data) for network in HEADS}
    rows = [row for network in HEADS for row in _on_files(place, network, weights[network])]
    rows += _on_pixels(place, weights)
    return Figures(rows, NOTE, list(_goals(rows)))


NOTE = f"""Against the naive script on the same files: `relative error` is the largest distance of a row over its
length; `centred cosine` is that of rows less their mean, the lowest and the mean. Against plain PyTorch in fp32 given
the same pixels: the largest distance of any of {IMAGES} rows. Weights are pretrained where $OFFSHELF_DATA has them,
else seeded; random features vary little, which flatters plain cosines and sharpens centred ones."""


def weights_of(network: str, data: Path) -> str:
    """Return the pretrained weights' file, or none."""
    found = sorted((data / "weights").glob(f"{network}.*"))
    return str(found[0]) if found else "none"


def _on_files(place: Place, network: str, weights: str) -> Iterator[Numbers]:
    """Compare each variant of ours with the naive script: small photos, and for scaled decoding large ones."""
    state, out = state_file(network, place.work, weights), place.work / "out"
    for size, make, n in (("small", photos.small, IMAGES), ("large", photos.large, LARGE)):
        folder = make(place, place.share(n))
        timed(program("rivals.naive", folder, "--model", network, "--state", state, "--out", emptied(out)))
        expected = np.load(out / "features.npy")
        for name, options in VARIANTS.items():
            if (size == "large") == (name.endswith("scaled")) or (size == "large" and name == DEFAULT):
                found = _rows(place, folder, network, weights, options)
                about = {"photos": size, "network": network, "weights": _kind(weights), "variant": name}
                yield about | compared(found, expected)


def _kind(weights: str) -> str:
    return "seeded" if weights == "none" else "pretrained"


def _rows(place: Place, folder: Path, network: str, weights: str, options: tuple[str, ...]) -> np.ndarray:
    cache = emptied(place.work / "equal-cache")
    told = ours(place, folder, "-m", network, "--weights", weights, "--device", "cpu", *options, cache=cache)
    features = FeatureSet(Path(told["path"]))
    rows = dict(zip(features.ids, features.read("penultimate"), strict=True))
    return np.stack([rows[name] for name in names(listed(folder), folder)]).astype(np.float64)


def compared(found: np.ndarray, expected: np.ndarray) -> Numbers:
    """Compare rows (n, D): relative error, and cosines after the mean row of the expected ones is taken off."""
    error = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    centre = expected.mean(0)
    a, b = found - centre, expected - centre
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    shown = {"relative_error": float(f"{error.max():.2e}")}
    return shown | {"lowest_cosine": round(float(cosines.min()), 6), "mean_cosine": round(float(cosines.mean()), 6)}


def _on_pixels(place: Place, weights: Mapping[str, str]) -> Iterator[Numbers]:
    for network, file in weights.items():
        state = state_file(network, place.work, file)
        folder = photos.small(place, place.share(IMAGES))
        errors = timed(program("equal", folder, network, file, state))
        for name, error in errors.items():
            if name not in ("whole_s", "foreign_cores"):
                about = {"photos": "same pixels", "network": network, "weights": _kind(file)}
                yield about | {"variant": name, "relative_error": error}


def _goals(rows: list[Numbers]) -> Iterator[Goal]:
    same = [row for row in rows if row["photos"] == "same pixels"]
    worst = max(same, key=lambda row: row["relative_error"])
    said = f"{worst['relative_error']:.1e} at most ({worst['network']}, {worst['variant']})"
    goal = f"fp32 features given the same pixels: relative error <= {RELATIVE:.0e}"
    yield Goal(goal, said, worst["relative_error"] <= RELATIVE)
    judged = [row for row in rows if row["variant"] == DEFAULT and row["weights"] == "pretrained"]
    goal = f"default decoder: centred cosine to the reference >= {COSINE} on pretrained weights"
    if not judged:
        yield Goal(goal, "no pretrained weights here", None)
        return
    mean, lowest = min(row["mean_cosine"] for row in judged), min(row["lowest_cosine"] for row in judged)
    yield Goal(goal, f"mean {mean:.6f}, lowest of an image {lowest:.6f}", lowest >= COSINE)


def on_pixels(folder: Path, network: str, weights: str, state: Path) -> Numbers:
    """Compare the exact network and every runner, in fp32, with plain PyTorch: relative errors by name."""
    import torch

    from benchmarks.extract.rivals.common import headless
    from extract.forward import build_extractor
    from extract.runners import prepare
    from extract.spec import BackboneSpec, ExtractSpec

    pixels = same_pixels(folder, network)
    spec = ExtractSpec("", backbone=BackboneSpec(network, weights), precision="fp32", device="cpu")
    extractor = build_extractor(spec)
    plain = _batched(_plain(headless(network, state), extractor.recipe.preprocessing), pixels)
    found = {"exact": _batched(lambda batch: extractor.exact(batch)["penultimate"], pixels)}
    for name in COMPILERS:
        lane = prepare(extractor, batch_size=32, compiler=name).lane()
        with torch.inference_mode():
            found[name] = _batched(lambda batch, lane=lane: lane(batch)["penultimate"].cpu().numpy(), pixels)
    return {f"fp32 {name}": compared(rows, plain)["relative_error"] for name, rows in found.items()}


def same_pixels(folder: Path, network: str):
    """Return photos as the naive script sees them, before they are standardised: (n, 3, S, S) uint8."""
    import torch
    from PIL import Image
    from torchvision.models import get_model_weights
    from torchvision.transforms import functional as F

    preset = get_model_weights(network).IMAGENET1K_V1.transforms()
    images = [Image.open(path).convert("RGB") for path in listed(folder)]
    resized = [F.resize(image, preset.resize_size, preset.interpolation) for image in images]
    tensors = [F.pil_to_tensor(F.center_crop(image, preset.crop_size)) for image in resized]
    return torch.stack(tensors).contiguous(memory_format=torch.channels_last)


def _plain(network, preset) -> Callable:
    import torch
    from torchvision.transforms import functional as F

    def run(batch):
        with torch.no_grad():
            return network(F.normalize(F.convert_image_dtype(batch, torch.float32), preset.mean, preset.std)).numpy()

    return run


def _batched(run: Callable, pixels) -> np.ndarray:
    return np.concatenate([np.array(run(batch)) for batch in pixels.split(32)]).astype(np.float64)


if __name__ == "__main__":
    print(json.dumps(on_pixels(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]))))
