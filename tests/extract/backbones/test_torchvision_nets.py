import functools
import hashlib
import http.server
import threading

import pytest
import torch
from torchvision import models
from torchvision.models import MobileNet_V2_Weights, ResNet50_Weights, SqueezeNet1_1_Weights

from extract.backbones import open_backbone
from extract.backbones.torchvision_nets import downloaded, listing, names
from extract.errors import BackboneError, OptionError
from extract.spec import BackboneSpec


def test_every_classification_convnet_and_nothing_else_is_offered():
    offered = names()
    assert {"resnet50", "vgg16", "alexnet", "squeezenet1_0", "googlenet", "convnext_tiny"} <= set(offered)
    assert not [name for name in offered if name.startswith(("vit", "swin", "maxvit", "quantized", "fcn", "raft"))]


def test_the_frozen_default_is_the_first_recipe():
    assert open_backbone(BackboneSpec("resnet50")).weights == "IMAGENET1K_V1"
    assert open_backbone(BackboneSpec("regnet_y_128gf")).weights == ResNet50_or_default("regnet_y_128gf")


def ResNet50_or_default(name: str) -> str:  # noqa: N802
    return models.get_model_weights(name)["DEFAULT"].name


@pytest.mark.parametrize("weights", ["IMAGENET1K_V1", "IMAGENET1K_V2"])
def test_the_preprocessing_is_that_of_the_weights(weights):
    preset = open_backbone(BackboneSpec("resnet50", weights)).preprocessing
    own = ResNet50_Weights[weights].transforms()
    assert [preset.resize_size, preset.crop_size] == [own.resize_size[0], own.crop_size[0]]
    assert (list(preset.mean), list(preset.std)) == (own.mean, own.std)
    assert preset.interpolation == own.interpolation.value


def test_an_override_replaces_one_field():
    spec = BackboneSpec("resnet50", overrides=(("resize_size", 300), ("mean", (0.5, 0.5, 0.5))))
    preset = open_backbone(spec).preprocessing
    assert (preset.resize_size, preset.crop_size, preset.mean) == (300, 224, (0.5, 0.5, 0.5))
    with pytest.raises(OptionError):
        open_backbone(BackboneSpec("resnet50", overrides=(("crop_size", 0),)))


def test_random_weights_are_seeded_and_leave_the_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = open_backbone(BackboneSpec("squeezenet1_1", "none", 1)).read()
    again = open_backbone(BackboneSpec("squeezenet1_1", "none", 1)).read()
    other = open_backbone(BackboneSpec("squeezenet1_1", "none", 2)).read()
    assert torch.equal(torch.get_rng_state(), before)
    name = "features.0.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


def test_published_inputs_of_the_two_headed_networks_are_normalised_inside():
    for name in ("googlenet", "inception_v3"):
        assert open_backbone(BackboneSpec(name)).network.transform_input


@pytest.mark.parametrize(
    ("model", "weights", "said"),
    [
        ("resnet19", "auto", r"no model 'resnet19' \(nearest: 'resnet1"),
        ("vit_b_16", "auto", "no model 'vit_b_16'"),
        ("onnx:resnet18", "auto", "no kind of model 'onnx'"),
        ("resnet18", "IMAGENET1K_V9", "no weights of resnet18 called 'IMAGENET1K_V9'"),
        ("builtin:resnet", "auto", "no built-in model 'resnet'"),
        ("builtin", "IMAGENET1K_V1", "no weights of builtin:cifar_resnet14"),
    ],
)
def test_what_there_is_not_is_told(model, weights, said):
    with pytest.raises(BackboneError, match=said):
        open_backbone(BackboneSpec(model, weights))


@pytest.fixture
def server(tmp_path):
    """A local server over a folder; torch keeps its downloads in a folder of this test's own."""
    served = tmp_path / "served"
    served.mkdir()
    handler = functools.partial(QuietHandler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield served, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the name of the base class
        pass


def serve(monkeypatch, tmp_path, served, url, weights, *, spoil=b""):
    """Put random weights where `weights` are said to lie, under a name that carries their hash; then spoil them."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    state = models.squeezenet1_1(weights=None).state_dict()
    torch.save(state, served / "w.pth")
    data = (served / "w.pth").read_bytes()
    name = f"net-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    (served / name).write_bytes(data + spoil)
    monkeypatch.setitem(weights.value.__dict__, "url", f"{url}/{name}")
    return state


def test_weights_are_downloaded_once_with_their_hash_checked(monkeypatch, tmp_path, server, capsys):
    served, url = server
    state = serve(monkeypatch, tmp_path, served, url, SqueezeNet1_1_Weights.IMAGENET1K_V1)
    assert downloaded("squeezenet1_1") == []
    read = open_backbone(BackboneSpec("squeezenet1_1")).read()
    assert torch.equal(read["features.0.weight"], state["features.0.weight"])
    assert downloaded("squeezenet1_1") == ["IMAGENET1K_V1"]
    assert capsys.readouterr().out == ""
    for path in served.iterdir():
        path.unlink()
    assert open_backbone(BackboneSpec("squeezenet1_1")).read().keys() == state.keys()


def test_a_download_of_another_hash_is_refused(monkeypatch, tmp_path, server):
    served, url = server
    serve(monkeypatch, tmp_path, served, url, SqueezeNet1_1_Weights.IMAGENET1K_V1, spoil=b"x")
    with pytest.raises(BackboneError, match="invalid hash value"):
        open_backbone(BackboneSpec("squeezenet1_1")).read()
    assert downloaded("squeezenet1_1") == []


def test_weights_that_cannot_be_had_come_with_both_remedies(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(MobileNet_V2_Weights.IMAGENET1K_V1.value.__dict__, "url", "http://127.0.0.1:9/net-00000000.pth")
    with pytest.raises(BackboneError) as caught:
        open_backbone(BackboneSpec("mobilenet_v2")).read()
    assert "not on this machine and could not be downloaded" in caught.value.what
    assert "--weights FILE" in caught.value.remedy
    assert "--model builtin" in caught.value.remedy


def test_the_listing_is_torchvisions_own():
    listed = listing("resnet50")
    assert listed.parameters == 25_557_032
    assert listed.top1 == 76.13
    assert listed.weights == ["IMAGENET1K_V1", "IMAGENET1K_V2"]
