import hashlib

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from extract.backbones.torchvision_nets import renamed, skeleton
from extract.backbones.weights import WithoutContent, as_state, digest, fit_state, read_state
from extract.errors import BackboneError

NET = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 5))
STATE = NET.state_dict()
TRUNK = [name for name in STATE if not name.startswith("3.")]


def test_a_file_is_read_in_either_form(tmp_path):
    torch.save(STATE, tmp_path / "w.pth")
    save_file(STATE, tmp_path / "w.safetensors")
    for path in tmp_path.iterdir():
        read = read_state(path)
        assert read.keys() == STATE.keys()
        assert all(torch.equal(read[name], STATE[name]) for name in STATE)


def test_half_precision_is_used_as_float32(tmp_path):
    save_file(
        {name: value.half() if value.is_floating_point() else value for name, value in STATE.items()},
        tmp_path / "w.safetensors",
    )
    read = fit_state(NET, STATE, read_state(tmp_path / "w.safetensors"), where="x")
    assert read["0.weight"].dtype == torch.float32
    assert read["1.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_a_checkpoint_is_unwrapped(wrapper):
    assert as_state({wrapper: STATE, "epoch": 3}, where="x").keys() == STATE.keys()


def test_the_prefix_of_data_parallel_training_is_dropped():
    assert as_state({f"module.{name}": value for name, value in STATE.items()}, where="x").keys() == STATE.keys()


@pytest.mark.parametrize("loaded", [[], {}, {"a": 1}, 3, {"state_dict": {"a": "b"}}])
def test_what_is_no_state_dict_is_refused(loaded):
    with pytest.raises(BackboneError, match="no state dict"):
        as_state(loaded, where="x")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(BackboneError, match="no such weights file"):
        read_state(tmp_path / "none.pth")


def test_another_number_of_classes_is_fine_below_the_classifier():
    other = STATE | {"3.weight": torch.zeros(7, 2), "3.bias": torch.zeros(7)}
    assert fit_state(NET, TRUNK, other, where="x").keys() == set(TRUNK)
    with pytest.raises(BackboneError, match=r"2 of another shape or type \(3.bias \(7,\) for \(5,\)"):
        fit_state(NET, STATE, other, where="x")


def test_another_head_is_fine_below_the_classifier():
    grown = {name: STATE[name] for name in TRUNK} | {"3.0.weight": torch.zeros(4, 2), "3.2.bias": torch.zeros(4)}
    assert fit_state(NET, TRUNK, grown, where="x").keys() == set(TRUNK)


def test_no_head_at_all_is_fine_below_the_classifier():
    assert fit_state(NET, TRUNK, {name: STATE[name] for name in TRUNK}, where="x").keys() == set(TRUNK)


def test_the_difference_is_readable():
    wrong = {name: value for name, value in STATE.items() if name != "0.bias"} | {"0.gamma": torch.zeros(1)}
    with pytest.raises(BackboneError) as caught:
        fit_state(NET, TRUNK, wrong, where="w.pth")
    assert "1 missing (0.bias); 1 unexpected (0.gamma)" in caught.value.what
    assert caught.value.where == "w.pth"


def test_the_weights_of_another_architecture_are_refused():
    other = models.resnet34(weights=None).state_dict()
    network = skeleton("resnet18")
    needed = [name for name in network.state_dict() if not name.startswith("fc.")]
    with pytest.raises(BackboneError, match=r"unexpected \(layer1.2.bn1.bias, .*\.\.\.\)"):
        fit_state(network, needed, other, where="x")


def test_counters_that_old_files_lack_are_zero():
    old = {name: value for name, value in STATE.items() if not name.endswith("num_batches_tracked")}
    assert int(fit_state(NET, TRUNK, old, where="x")["1.num_batches_tracked"]) == 0


def test_the_digest_is_that_of_names_types_shapes_and_bytes():
    value = torch.tensor([1.0, 2.0])
    expected = hashlib.sha256(b"a torch.float32 (2,)\n" + value.numpy().tobytes()).hexdigest()
    assert digest({"a": value}) == expected
    assert digest({"b": value, "a": value}) == digest({"a": value, "b": value})
    others = [{"b": value}, {"a": value.double()}, {"a": value[None]}, {"a": value + 1}]
    assert len({digest(state) for state in [{"a": value}, *others]}) == 5


def test_a_digest_sees_values_not_strides():
    value = torch.arange(6.0).reshape(2, 3)
    assert digest({"a": value.t().contiguous().t()}) == digest({"a": value})


def test_a_network_without_content_has_shapes_and_no_memory():
    with WithoutContent():
        net = models.regnet_y_400mf(weights=None)
    whole = models.regnet_y_400mf(weights=None).state_dict()
    bare = net.state_dict()
    assert {name: value.shape for name, value in bare.items()} == {name: value.shape for name, value in whole.items()}
    assert all(value.is_meta for name, value in bare.items() if not name.endswith("num_batches_tracked"))


def test_densenet_files_of_old_are_renamed():
    old = {"features.denseblock1.denselayer1.norm.1.weight": torch.ones(1), "features.norm0.weight": torch.ones(1)}
    assert list(renamed(old)) == ["features.denseblock1.denselayer1.norm1.weight", "features.norm0.weight"]
