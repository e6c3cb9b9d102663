from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classify.advise import depth
from classify.advise.depth import MAX_DIMS, depth_profile, images_within, level, stage_taps
from classify.advise.sample import subset
from classify.finetune.images import Source, find_source
from classify.inputs import Inputs, open_for_fit, read_inputs
from classify.search import scan_one
from classify.spec import FitSpec
from classify.trials import Candidate
from extract import loader
from extract.backbones import open_skeleton
from extract.errors import FitError
from extract.forward import resolve_taps
from extract.progress import Silent
from extract.recipe import Recipe
from extract.run import extract
from extract.spec import BackboneSpec
from extract.store import FeatureSet
from extract.taps import open_trunk
from tests.classify.tiny_features import tiny_recipe
from tests.classify.tiny_task import tiny_task
from tests.faults.storage import InProcess
from tests.tiny import features_of, tiny_spec

SIDE_PX = 32
SHAPES = {
    "disc": lambda u, v: u**2 + v**2 < 1,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) < 0.886,
    "bar": lambda u, v: np.maximum(1.9 * abs(u), abs(v) / 1.9) < 0.886,
}
"""Of equal areas."""


def shape(name: str, seed: int) -> Image.Image:
    """A shape of any size, colour and place, turned: what pixels one by one do not tell."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX] - rng.uniform(10, 22, 2)[:, None, None]
    turn, size = rng.uniform(0, 2 * np.pi), rng.uniform(5, 9)
    u, v = rows * np.cos(turn) + columns * np.sin(turn), columns * np.cos(turn) - rows * np.sin(turn)
    inside = SHAPES[name](u / size, v / size)[..., None]
    pixels = np.where(inside, rng.uniform(0, 255, 3), rng.uniform(0, 255, 3)) + rng.normal(0, 20, (SIDE_PX, SIDE_PX, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module", autouse=True)
def in_process():
    """What decodes is not at stake here, and costs a start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "Decoder", InProcess)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Shapes, and their features by the built-in network, as it was trained and with random weights."""
    root = tmp_path_factory.mktemp("depth")
    for number, name in enumerate(SHAPES):
        (root / "shapes" / name).mkdir(parents=True)
        for i in range(30):
            shape(name, 1000 * number + i).save(root / "shapes" / name / f"{i:02}.png")
    for name, weights in (("learned", "auto"), ("fresh", "none")):
        backbone = BackboneSpec("builtin", weights, seed=7)
        extract(
            tiny_spec(root / "shapes", root / "cache", name=name, backbone=backbone, taps=("layer1", "penultimate"))
        )
    return root


def opened(root: Path, name: str = "learned", **changes) -> tuple[FitSpec, Inputs, Source]:
    spec = FitSpec(name, cache=root / "cache", device="cpu", jobs=1, duplicates="off", **changes)
    inputs = read_inputs(spec, open_for_fit(spec), Silent())
    return spec, inputs, find_source(inputs.features, inputs.data.train.rows, str(root / "shapes"), None)


def sets_beside(root: Path, name: str) -> list[Path]:
    return sorted((root / "cache" / f"{name}-depth").glob("*/features.h5"))


def test_what_a_network_has_learned_of_photos_shows_at_the_end_of_it(root):
    found = depth_profile(*opened(root), Silent())
    assert [tap.layer for tap in found.taps] == ["layer1:grid:11", "layer2:grid:8", "layer3:grid:5"]
    assert [tap.dims for tap in found.taps] == [32 * 11**2, 64 * 8**2, 128 * 5**2]
    assert all(tap.dims <= MAX_DIMS for tap in found.taps)
    assert found.n == 72
    assert found.peak == found.last == "layer3:grid:5"
    assert found.taps[-1].gain["low"] > 0
    assert found.drop["high"] < 0
    assert found.similarity == "similar"


def test_random_weights_gain_nothing_over_others(root):
    found = depth_profile(*opened(root, "fresh"), Silent())
    assert found.gain["low"] <= 0 <= found.gain["high"]
    assert found.similarity in ("useless", "unclear")


def test_the_same_random_weights_are_no_gain_at_all(root):
    found = depth_profile(*opened(root, "fresh", seed=7), Silent())
    assert all(set(tap.gain.values()) == {0.0} for tap in found.taps)


def test_rows_are_those_of_a_plain_extraction_whatever_their_order(root, monkeypatch):
    spec, inputs, source = opened(root, seed=3)
    asked: list[np.ndarray] = []

    def spy(task, candidate):
        asked.append(task.read(candidate.layers, "none").take(np.arange(len(task))))
        return scan_one(task, candidate)

    monkeypatch.setattr(depth, "scan_one", spy)
    found = depth_profile(spec, inputs, source, Silent(), most=20)
    at = subset(inputs.data.train, 3, 20)
    assert found.n == len(at) == 20
    ids = [inputs.features.ids[row] for row in inputs.data.train.rows[at]]
    assert [sorted(FeatureSet(path).ids) for path in sets_beside(root, "learned")].count(sorted(ids)) == 2
    taps, y = [tap.layer for tap in found.taps], inputs.data.train.y[at]
    for number, (weights, seed) in enumerate((("auto", 0), ("none", 3))):
        backbone = BackboneSpec("builtin", weights, seed=seed)
        plain = features_of(
            extract(tiny_spec(root / "shapes", root / f"plain-{weights}", backbone=backbone, taps=tuple(taps)))
        )
        rows = [plain.ids.index(each) for each in ids]
        for depth_, tap in enumerate(taps):
            X = level(plain.read(tap, rows))
            np.testing.assert_allclose(asked[number * len(taps) + depth_], X, rtol=1e-4, atol=1e-5)
            judged = scan_one(tiny_task(y, {tap: X}), Candidate((tap,), "std", X.shape[1], 0))
            scores = found.taps[depth_].pretrained if weights == "auto" else found.taps[depth_].random
            assert scores["value"] == pytest.approx(judged.metrics["accuracy"]["value"])


def test_nothing_is_computed_twice_and_more_images_only_add(root, monkeypatch):
    spec, inputs, source = opened(root, seed=5)
    few = depth_profile(spec, inputs, source, Silent(), most=20)
    monkeypatch.setattr(depth, "scan_one", None)
    again = depth_profile(spec, inputs, source, Silent(), most=20)
    assert replace(again, seconds=0.0) == replace(few, seconds=0.0)
    plans = [depth.dry_run(each) for each in depth._looks(spec, inputs, source, 30).extractions]
    assert [plan["reused"] for plan in plans][1] == 20  # and of learned weights what other seeds looked at, too
    assert [plan["to_compute"] for plan in plans][1] == 10


def test_time_for_extracting_is_told_from_a_probe_and_cached_images_cost_none(root, monkeypatch):
    spec, inputs, source = opened(root)

    def told(*said):
        plans = iter(said)
        monkeypatch.setattr(depth, "dry_run", lambda extraction, watch: next(plans))
        return images_within(spec, inputs, source, Silent(), seconds=3)

    new, cached = {"to_compute": 72, "images_per_s": 20.0}, {"to_compute": 0, "images_per_s": None}
    assert told(new, new) == 30
    assert told(cached, new) == 60
    assert told(cached, cached) == 72
    assert told({"to_compute": 72, "images_per_s": 1e4}, cached) == 72


def test_an_image_that_was_changed_since_is_no_part_of_it(root, tmp_path):
    spec, inputs, source = opened(root)
    moved = tmp_path / "shapes"
    for path in (root / "shapes").rglob("*.png"):
        (moved / path.parent.name).mkdir(parents=True, exist_ok=True)
        (moved / path.parent.name / path.name).write_bytes(path.read_bytes())
    row = int(inputs.data.train.rows[0])
    shape("disc", 99).save(moved / inputs.features.ids[row])
    with pytest.raises(FitError, match=r"1 of 72 images.*changed"):
        depth_profile(spec, inputs, replace(source, data=str(moved)), Silent())


def recipe(model: str, size_px: int, *layers: str) -> Recipe:
    """A recipe of a network's taps, as an extraction has it."""
    trunk = open_trunk(open_skeleton(model))
    taps, nodes = resolve_taps(trunk, layers, size_px)
    known = tiny_recipe(["layer"])
    preset = replace(known.preprocessing, resize_size=size_px, crop_size=size_px)
    return replace(known, model=model, taps=taps, nodes=nodes, preprocessing=preset)


RESNET = ("layer1:grid:8", "layer2:grid:5", "layer3:grid:4", "layer4:grid:2")


@pytest.mark.parametrize(
    ("model", "size_px", "layers", "taps"),
    [
        ("torchvision:resnet18", 224, ("penultimate",), ("relu:grid:8", *RESNET)),
        ("torchvision:resnet18", 224, ("layer1", "layer3", "layer4:map"), ("relu:grid:8", *RESNET[:3])),
        ("torchvision:resnet18", 224, ("layer3.0",), ("relu:grid:8", *RESNET[:2], "layer3.0:grid:4")),
        (
            "torchvision:resnet18",
            32,
            ("penultimate",),
            ("relu:grid:8", "layer1:grid:8", "layer2:grid:4", "layer3:grid:2", "penultimate"),
        ),
        ("builtin:cifar_resnet14", 32, ("layer2:grid:4",), ("layer1:grid:11", "layer2:grid:8")),
    ],
)
def test_stages_are_pooled_to_about_as_many_numbers_each(model, size_px, layers, taps):
    assert stage_taps(recipe(model, size_px, *layers)) == taps


def test_layers_with_weights_behind_the_last_stage_are_one_more():
    taps = stage_taps(recipe("torchvision:alexnet", 224, "penultimate"))
    assert taps[-1] == "penultimate"
    assert all(":grid:" in tap for tap in taps[:-1])


def test_before_the_first_stage_there_is_nothing_to_compare_with():
    with pytest.raises(FitError, match="first stage"):
        stage_taps(recipe("builtin:cifar_resnet14", 32, "layer1"))


@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e12])
def test_how_large_numbers_are_changes_no_answer(scale):
    rng, y = np.random.default_rng(0), np.arange(60) % 3
    X = (np.eye(3)[y] + rng.normal(size=(60, 3))).astype(np.float32)
    scaled = level((scale * X).astype(np.float32))
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, level(X), rtol=1e-5)
    assert np.mean(scaled.astype(np.float64) ** 2) == pytest.approx(1)


def test_rows_of_zeros_stay_and_are_answered_for():
    X, y = np.zeros((12, 3), np.float32), np.arange(12) % 3
    assert np.array_equal(level(X), X)
    assert scan_one(tiny_task(y, {"tap": level(X)}), Candidate(("tap",), "std", 3, 0)).predicted.shape == (12,)
