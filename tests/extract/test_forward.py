from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision import models, transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F
from torchvision.transforms._presets import ImageClassification

from extract.backbones import digest, open_backbone
from extract.backbones.builtin.network import CifarResNet
from extract.errors import BackboneError, OptionError, TapError
from extract.forward import Extractor, build_extractor, rebuild_extractor
from extract.images import DECODERS
from extract.recipe import Recipe, Tap
from extract.spec import BackboneSpec, EngineSpec, ExtractSpec
from tests.tiny import picture, tiny_spec

SMALL = (("resize_size", 72), ("crop_size", 64))
RESNET = BackboneSpec("resnet18", "none", overrides=SMALL)
SQUEEZENET = BackboneSpec("squeezenet1_1", "none", overrides=SMALL)
BUILTIN = BackboneSpec("builtin", "none")
PLAIN = {"torchvision:resnet18": models.resnet18, "torchvision:squeezenet1_1": models.squeezenet1_1}


def build(backbone: BackboneSpec = BUILTIN, *taps: str, **changes) -> Extractor:
    return build_extractor(tiny_spec("", Path("cache"), backbone=backbone, taps=taps or ("penultimate",), **changes))


def images(n: int) -> list[Image.Image]:
    return [picture(seed, (60 + 9 * seed, 75)) for seed in range(n)]


def pixels_of(extractor: Extractor, pictures: list[Image.Image]) -> Tensor:
    preset = extractor.recipe.preprocessing
    resized = [transforms.Resize(preset.resize_size)(image) for image in pictures]
    return torch.stack([F.pil_to_tensor(transforms.CenterCrop(preset.crop_size)(image)) for image in resized])


def run(extractor: Extractor, pictures: list[Image.Image]) -> dict[str, np.ndarray]:
    return extractor.exact(pixels_of(extractor, pictures))


def plain_network(backbone: BackboneSpec) -> nn.Module:
    opened = open_backbone(backbone)
    network = PLAIN.get(opened.model, CifarResNet)()
    network.load_state_dict(opened.read())
    return network.double().eval()


def reference(backbone: BackboneSpec, modules: list[str], image: Image.Image) -> dict[str, np.ndarray]:
    """One image through the whole network in float64: what each module gave, copied before anything can change it."""
    preset = open_backbone(backbone).preprocessing
    transform = ImageClassification(
        crop_size=preset.crop_size,
        resize_size=preset.resize_size,
        mean=preset.mean,
        std=preset.std,
        interpolation=InterpolationMode(preset.interpolation),
    )
    network, kept = plain_network(backbone), {}
    for name in modules:
        network.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: kept.__setitem__(name, output.clone().numpy()[0])
        )
    with torch.no_grad():
        network(transform(image)[None].double())
    return kept


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize(
    ("backbone", "taps"),
    [
        (BUILTIN, {"layer1": "layer1", "layer2.0.bn2:max": "layer2.0.bn2", "penultimate": "layer3"}),
        (RESNET, {"relu": "relu", "layer1.0.bn2": "layer1.0.bn2", "layer3:max": "layer3", "penultimate": "layer4"}),
        (SQUEEZENET, {"features.2:max": "features.2", "features.5": "features.5", "penultimate": "features.12"}),
    ],
    ids=lambda value: value.model if isinstance(value, BackboneSpec) else "",
)
def test_rows_are_those_of_a_plain_loop_in_double_precision(backbone, taps):
    pictures = images(4)
    rows = run(build(backbone, *taps), pictures)
    assert rows.keys() == taps.keys()
    for i, image in enumerate(pictures):
        maps = reference(backbone, list(taps.values()), image)
        for tap, module in taps.items():
            pool = np.max if tap.endswith(":max") else np.mean
            assert relative(rows[tap][i], pool(maps[module], (1, 2))) < 1e-5


def test_the_penultimate_rows_times_the_classifier_are_the_logits():
    rows = run(build(RESNET, "penultimate"), images(1))["penultimate"]
    classifier = plain_network(RESNET).fc
    logits = reference(RESNET, ["fc"], images(1)[0])["fc"]
    with torch.no_grad():
        assert relative(classifier(torch.from_numpy(rows).double()).numpy()[0], logits) < 1e-5


@pytest.mark.parametrize("backbone", [BUILTIN, RESNET], ids=lambda spec: spec.model)
def test_the_other_images_of_a_batch_do_not_change_a_row(backbone):
    extractor = build(backbone, "layer2", "penultimate")
    pictures = images(7)
    together, backwards = run(extractor, pictures), run(extractor, pictures[::-1])
    for i, image in enumerate(pictures):
        alone = run(extractor, [image])
        for tap, rows in together.items():
            assert relative(rows[i], alone[tap][0]) <= 1e-6
            assert relative(backwards[tap][-1 - i], alone[tap][0]) <= 1e-6


def test_the_network_is_born_frozen_and_stays_as_it_was(monkeypatch):
    def never_training(module: nn.Module, mode: bool = True) -> nn.Module:
        assert not mode, "train mode"
        for child in module.modules():
            child.training = False
        return module

    monkeypatch.setattr(nn.Module, "train", never_training)
    extractor = build(RESNET, "layer1", "penultimate")
    module = extractor.cut.module
    before = digest(module.state_dict())
    assert before == extractor.recipe.weights_sha256
    for _ in range(3):
        run(extractor, images(3))
    assert digest(module.state_dict()) == before
    assert any(name.endswith("running_mean") for name in module.state_dict())
    assert not any(child.training for child in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_the_cut_network_has_no_layer_above_the_deepest_tap():
    names = set(build(RESNET, "layer2").cut.module.state_dict())
    assert names == {n for n in models.resnet18().state_dict() if n.startswith(("conv1", "bn1", "layer1", "layer2"))}


def test_the_shapes_are_those_of_the_rows():
    extractor = build(BUILTIN, "layer1:grid:2", "layer2:map", "penultimate", views=2)
    shapes = {"layer1:grid:2": (4 * 32,), "layer2:map": (64, 16, 16), "penultimate": (128,)}
    assert extractor.shapes == shapes | {f"{name}@1": shape for name, shape in shapes.items()}
    assert list(extractor.shapes) == extractor.recipe.layers
    assert {name: rows.shape for name, rows in run(extractor, images(2)).items()} == {
        name: (2, *shape) for name, shape in shapes.items()
    }


def test_the_exact_rows_know_nothing_of_precision_and_store():
    exact = run(build(RESNET), images(2))["penultimate"]
    rough = run(build(RESNET, precision="bf16", store="float16"), images(2))["penultimate"]
    assert rough.dtype == np.float32
    assert np.array_equal(exact, rough)


def test_half_precision_is_stored_as_half_where_nobody_said():
    assert build().recipe.store == "float32"
    assert build(precision="bf16").recipe.store == "float16"
    assert build(precision="bf16", store="float32").recipe.store == "float32"


@pytest.mark.parametrize(
    ("crop", "on_cpu", "on_gpu"), [(224, 32, 256), (32, 256, 2048), (64, 256, 2048), (448, 8, 64), (1000, 8, 12)]
)
def test_a_batch_has_as_many_pixels_as_suit_the_device(crop, on_cpu, on_gpu):
    spec = replace(BUILTIN, overrides=(("resize_size", 1000), ("crop_size", crop)))
    extractor = build(spec, "layer1")
    assert extractor.batch_size == on_cpu
    assert replace(extractor, device=torch.device("cuda")).batch_size == on_gpu


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(OptionError, match="fp16"):
        build(precision="fp16")


def test_a_processor_without_bf16_is_told_so(monkeypatch):
    monkeypatch.setattr("extract.devices.computes_bf16", lambda _: False)
    with pytest.raises(OptionError, match=r"does not compute bf16.*--precision fp32"):
        build(precision="bf16")


@pytest.mark.parametrize("changes", [{"tf32": True}, {"tf32": True, "precision": "bf16"}, {"decoder": "gpu"}])
def test_what_only_a_gpu_does_is_refused_on_a_cpu(changes):
    with pytest.raises(OptionError, match="on a cpu"):
        build(**changes)


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "", "meta"])
def test_a_device_that_computes_nothing_here_is_refused(name):
    with pytest.raises(OptionError, match="--device cpu"):
        build(device=name)


def test_of_several_devices_the_extractor_lies_on_the_first():
    assert build(device="cpu,cuda:99").device == torch.device("cpu")


def test_rows_rebuilt_from_the_stored_weights_are_bitwise_the_same(tmp_path):
    extractor = build(RESNET, "layer1", "layer3:max", "penultimate", views=2)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(extractor.weights())
    rows = run(extractor, images(3))
    for tap in rows:
        again = rebuild_extractor(extractor.recipe, weights, (tap,), device="cpu")
        assert again.shapes == {tap: extractor.shapes[tap]}
        assert again.recipe.key == extractor.recipe.key
        assert np.array_equal(run(again, images(3))[tap], rows[tap])
    two = rebuild_extractor(extractor.recipe, weights, ("penultimate", "layer1"), device="cpu")
    assert two.shapes == {tap: extractor.shapes[tap] for tap in ("layer1", "penultimate")}
    again = run(two, images(3))
    assert all(np.array_equal(again[tap], rows[tap]) for tap in two.shapes)
    whole = rebuild_extractor(extractor.recipe, weights, device="cpu")
    assert whole.shapes == extractor.shapes
    again = run(whole, images(3))
    assert all(np.array_equal(again[tap], rows[tap]) for tap in rows)


def test_changed_weights_are_refused_on_rebuilding(tmp_path):
    extractor = build(BUILTIN, "layer1")
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(extractor.weights())
    state = load_file(weights)
    state["bn1.running_var"][0] += 1e-6
    save_file(state, weights)
    with pytest.raises(BackboneError, match="not those of the recipe"):
        rebuild_extractor(extractor.recipe, weights, ["layer1"], device="cpu")
    weights.unlink()
    with pytest.raises(BackboneError, match="no such weights file"):
        rebuild_extractor(extractor.recipe, weights, ["layer1"], device="cpu")


def test_a_tap_that_the_recipe_lacks_is_named_on_rebuilding(tmp_path):
    extractor = build(BUILTIN, "layer1")
    (tmp_path / "w.safetensors").write_bytes(extractor.weights())
    with pytest.raises(TapError, match=r"no tap of the recipe 'layer2' \(nearest: 'layer1'\)"):
        rebuild_extractor(extractor.recipe, tmp_path / "w.safetensors", ["layer1", "layer2"], device="cpu")


def test_a_recipe_of_another_decoder_is_refused_on_rebuilding(tmp_path):
    extractor = build(BUILTIN, "layer1")
    (tmp_path / "w.safetensors").write_bytes(extractor.weights())
    with pytest.raises(BackboneError, match="decodes"):
        rebuild_extractor(replace(extractor.recipe, decoder="another"), tmp_path / "w.safetensors", ["layer1"])


def test_rebuilt_for_another_processor_the_precision_holds_or_an_error_says_why_not(tmp_path, monkeypatch, caplog):
    extractor = build(BUILTIN, "layer1", precision="bf16")
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(extractor.weights())
    monkeypatch.setattr("extract.forward.computes_bf16", lambda _: False)
    assert rebuild_extractor(extractor.recipe, weights, ["layer1"], device="cpu").recipe.precision == "bf16"
    assert "only emulates bf16" in caplog.text
    for changes in ({"precision": "fp16"}, {"precision": "fp32", "tf32": True}):
        with pytest.raises(OptionError, match="extracted otherwise"):
            rebuild_extractor(replace(extractor.recipe, **changes), weights, ["layer1"], device="cpu")


def saved(state: dict[str, Tensor], path: Path) -> BackboneSpec:
    torch.save(state, path)
    return BackboneSpec("builtin", str(path))


def test_weights_from_a_file_are_the_same_weights(tmp_path):
    state = open_backbone(BUILTIN).read()
    from_file = build(saved(state, tmp_path / "w.pt"), "layer1", "penultimate")
    assert from_file.recipe == build(BUILTIN, "layer1", "penultimate").recipe


def test_files_without_batch_counters_can_be_used_and_stored(tmp_path):
    state = {n: v for n, v in open_backbone(BUILTIN).read().items() if not n.endswith("num_batches_tracked")}
    extractor = build(saved(state, tmp_path / "w.pt"))
    assert np.array_equal(run(extractor, images(2))["penultimate"], run(build(), images(2))["penultimate"])
    (tmp_path / "kept.safetensors").write_bytes(extractor.weights())
    again = rebuild_extractor(extractor.recipe, tmp_path / "kept.safetensors", ["penultimate"], device="cpu")
    assert again.recipe.key == extractor.recipe.key


def test_random_weights_depend_on_their_seed_and_on_nothing_before(tmp_path):
    first = build().recipe.weights_sha256
    torch.manual_seed(99)
    assert build().recipe.weights_sha256 == first
    assert build(replace(BUILTIN, seed=1)).recipe.weights_sha256 != first


OTHER_PREPROCESSING = {
    "resize_size": 37,
    "crop_size": 31,
    "interpolation": "bicubic",
    "mean": (0.5, 0.5, 0.5000001),
    "std": (0.2, 0.2, 0.2000001),
}
IN_THE_KEY = {
    "backbone": (
        replace(BUILTIN, seed=1),
        replace(BUILTIN, weights="auto"),
        *(replace(BUILTIN, overrides=((name, value),)) for name, value in OTHER_PREPROCESSING.items()),
        RESNET,
    ),
    "taps": (("layer1",), ("penultimate", "layer1"), ("penultimate:max",), ("layer1", "layer2", "penultimate")),
    "precision": ("bf16",),
    "store": ("float16",),
    "decoder": ("scaled",),
    "views": (2, 3),
}
NOT_IN_THE_KEY = {
    "data": "elsewhere",
    "name": "other",
    "only": frozenset({"a.png"}),
    "root": Path("/root/of/images"),
    "cache": Path("other/cache"),
    "device": "auto",
    "batch_size": 7,
    "workers": 5,
    "rehash": True,
    "retry_failed": True,
    "wait": True,
    "compile": "none",
    "profile": Path("trace.json"),
    "view_seed": 5,
    "view_flips": False,
    "engine": EngineSpec("ray"),
    "part": (1, 2),
}
APART = {"tf32"}
"""In the key, but of a GPU only."""


def test_every_option_is_known_to_be_in_the_key_or_not():
    assert {field.name for field in fields(ExtractSpec)} == IN_THE_KEY.keys() | NOT_IN_THE_KEY.keys() | APART


def test_options_that_change_a_number_change_the_key_and_no_two_meet():
    specs = [
        tiny_spec("", Path("cache"), **{"taps": ("penultimate",), "backbone": BUILTIN, name: value})
        for name, values in IN_THE_KEY.items()
        for value in values
    ]
    keys = [build().recipe.key, *(build_extractor(spec).recipe.key for spec in specs)]
    assert len(set(keys)) == len(keys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="auto is another device here")
def test_options_that_change_no_number_leave_the_key():
    for name, value in NOT_IN_THE_KEY.items():
        spec = replace(tiny_spec("", Path("cache"), taps=("penultimate",), name="one"), **{name: value})
        assert build_extractor(spec).recipe.key == build().recipe.key, name


def test_the_seed_of_views_is_in_the_key_where_any_is_drawn():
    assert len({build(views=3, view_seed=seed).recipe.key for seed in (0, 5)}) == 2
    assert [build(views=views, view_seed=5).recipe.view_seed for views in (1, 2)] == [0, 0], "nothing is drawn"
    assert build(views=2, view_seed=5, view_flips=False).recipe.view_seed == 5


def test_whether_views_are_mirrored_is_in_the_key_where_there_are_any():
    assert len({build(views=2, view_flips=flips).recipe.key for flips in (True, False)}) == 2
    assert build(views=1, view_flips=False).recipe.view_flips, "nothing would be mirrored"


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_recipe_says_what_a_decoder_does(decoder, monkeypatch):
    monkeypatch.setattr("extract.forward._check", lambda *_: None)
    assert build(decoder=decoder).recipe.decoder == DECODERS[decoder]


def test_taps_given_in_another_order_or_twice_are_the_same_recipe():
    assert build(BUILTIN, "penultimate", "layer1", "layer1").recipe == build(BUILTIN, "layer1", "penultimate").recipe


def test_the_primary_tap_is_the_penultimate_one_or_else_the_deepest():
    assert build(BUILTIN, "penultimate:max", "layer1").recipe.primary == Tap("penultimate", "max")
    assert build(BUILTIN, "layer2", "layer1").recipe.primary == Tap("layer2")


@pytest.mark.parametrize("text", ["layer9", "", ":avg", "layer1:", "layer1:sum", "layer1:grid:999"])
def test_taps_that_cannot_be_had_are_refused(text):
    with pytest.raises(TapError):
        build(BUILTIN, text)


def test_the_recipe_survives_its_own_json():
    recipe = build(RESNET, "layer1:max", "penultimate").recipe
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert asdict(recipe)["preprocessing"]["crop_size"] == 64
