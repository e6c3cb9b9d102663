from contextlib import nullcontext

import pytest
import torch

from extract import devices
from extract.errors import OptionError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_names_of_devices_are_spelled_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.device_names("auto") == ["cuda"]
    assert devices.device_names("cuda:all") == ["cuda:0", "cuda:1"]
    assert devices.device_names("cuda:1, cpu") == ["cuda:1", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.device_names("auto") == ["cpu"]


def test_all_gpus_of_none_are_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(OptionError, match="no device 'cuda:all'"):
        devices.device_names("cuda:all")


@pytest.mark.parametrize(
    ("asked", "device", "bf16", "found"),
    [
        ("auto", CPU, True, "fp32"),
        ("auto", CUDA, True, "bf16"),
        ("auto", CUDA, False, "fp32"),
        ("fp32", CUDA, True, "fp32"),
        ("bf16", CPU, True, "bf16"),
        ("fp16", CUDA, False, "fp16"),
    ],
)
def test_precision_suits_the_device(monkeypatch, asked, device, bf16, found):
    monkeypatch.setattr(devices, "computes_bf16", lambda _: bf16)
    assert devices.resolve_precision(asked, device) == found


@pytest.mark.parametrize(("asked", "device"), [("fp16", CPU), ("bf16", CPU), ("bf16", CUDA)])
def test_a_precision_that_is_slower_than_fp32_is_refused(monkeypatch, asked, device):
    monkeypatch.setattr(devices, "computes_bf16", lambda _: False)
    with pytest.raises(OptionError, match="fp32"):
        devices.resolve_precision(asked, device)


@pytest.mark.parametrize(
    ("machine", "avx512", "amx", "onednn", "found"),
    [
        ("x86_64", True, False, True, True),
        ("x86_64", False, True, True, True),
        ("x86_64", False, False, True, False),
        ("AMD64", True, False, True, True),
        ("aarch64", False, False, True, True),
        ("arm64", True, True, False, False),
    ],
)
def test_a_processor_computes_bf16_where_it_has_instructions_for_it(monkeypatch, machine, avx512, amx, onednn, found):
    monkeypatch.setattr(devices.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(devices, "_onednn_computes_bf16", lambda: onednn)
    assert devices.computes_bf16(CPU) == found


@pytest.mark.parametrize(
    ("precision", "device", "capability", "fine"),
    [
        ("fp32", CUDA, (8, 0), True),
        ("fp32", CUDA, (9, 0), True),
        ("fp32", CUDA, (7, 5), False),
        ("bf16", CUDA, (9, 0), False),
        ("fp32", CPU, (9, 0), False),
    ],
)
def test_tf32_is_of_fp32_on_a_gpu_that_has_it(monkeypatch, precision, device, capability, fine):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    with nullcontext() if fine else pytest.raises(OptionError, match="--tf32"):
        devices.check_tf32(precision, device)


@pytest.mark.parametrize("several", ["cpu,cpu", "cuda:0,cuda:1"])
def test_one_device_is_picked_by_one_name(several):
    with pytest.raises(OptionError, match="several devices"):
        devices.pick_device(several)


def states() -> tuple[bool, ...]:
    """What is set, in the words of old and of new: reading either is an error where they disagree."""
    old = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    new = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision
    return *old, *(precision == "tf32" for precision in new)


@pytest.mark.filterwarnings("ignore:Please use the new API")
@pytest.mark.parametrize("allowed", [True, False])
def test_the_plain_reference_is_without_tf32_and_leaves_what_was_set(allowed):
    devices.set_tf32(allowed)
    assert states() == (allowed,) * 4
    with devices.full_fp32():
        assert states() == (False,) * 4
    assert states() == (allowed,) * 4
    devices.set_tf32(False)
