import contextlib
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor, nn

from extract.backbones import open_backbone, read_state
from extract.backbones.builtin.network import CifarResNet
from extract.errors import BackboneError
from extract.forward import build_extractor
from extract.spec import BackboneSpec
from tests.tiny import tiny_spec

# torch says much about strange files, on stderr; what counts here is what becomes of them.
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".pkl", "")
GOOD = open_backbone(BackboneSpec("builtin", "none")).read()


class Canary:
    """Creates a file when it is unpickled by anything that runs what a pickle says."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def built(path: Path):
    return build_extractor(tiny_spec("", path.parent, weights=str(path), taps=("penultimate",)))


def refused(path: Path) -> str:
    with pytest.raises(BackboneError) as caught:
        built(path)
    assert caught.value.remedy
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("wrap", ["pickle", "torch", "torch, old format", "beside good weights"])
def test_what_a_pickle_says_is_never_run(tmp_path, monkeypatch, wrap, suffix, forced):
    path, canary = tmp_path / f"weights{suffix}", tmp_path / "canary"
    evil = {**GOOD, "fc.weight": Canary(canary)} if wrap == "beside good weights" else {"fc.weight": Canary(canary)}
    if wrap == "pickle":
        path.write_bytes(pickle.dumps(evil))
    else:
        torch.save(evil, path, _use_new_zipfile_serialization=wrap != "torch, old format")
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    refused(path)
    assert not canary.exists()


def test_the_canary_sings_where_pickles_run(tmp_path):
    pickle.loads(pickle.dumps(Canary(tmp_path / "canary")))  # noqa: S301 our own
    assert (tmp_path / "canary").is_dir()


@pytest.mark.parametrize("forced", [False, True])
def test_a_whole_model_is_refused(tmp_path, monkeypatch, forced):
    torch.save(CifarResNet(), tmp_path / "model.pt")
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert "torch.save(model.state_dict(), FILE)" in refused(tmp_path / "model.pt")


def test_a_scripted_model_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/constants.pkl", pickle.dumps(()))
        archive.writestr("model/data.pkl", pickle.dumps({}))
        archive.writestr("model/code/__torch__.py", "import os")
        archive.writestr("model/version", "3\n")
    refused(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {},
        {"a": 1},
        {"state_dict": {}},
        {"state_dict": {"a": "text"}},
        {"model": {"model": {"model": {}}}},
        "text",
        torch.zeros(3),
    ],
    ids=repr,
)
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    assert "state dict" in refused(tmp_path / "w.pt")


def header(text: bytes, *, declared: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if declared is None else declared) + text


def tensors(**where: list[int]) -> bytes:
    return json.dumps({n: {"dtype": "F32", "shape": [2], "data_offsets": span} for n, span in where.items()}).encode()


SAFETENSORS = {
    "empty": b"",
    "half a length": b"\x08\0\0",
    "a header beyond the end": header(b"{}", declared=500),
    "a huge header": header(b"{}", declared=2**62),
    "a negative length": b"\xff" * 8 + b"{}",
    "no JSON": header(b"{'a': 1}"),
    "deep JSON": header(b'{"a":' * 50_000),
    "no UTF-8": header(b'{"\xff": 1}'),
    "overlapping tensors": header(tensors(a=[0, 8], b=[4, 12])) + bytes(12),
    "tensors beyond the end": header(tensors(a=[0, 8], b=[8, 16])) + bytes(12),
    "a hole": header(tensors(a=[0, 8], b=[16, 24])) + bytes(24),
    "backwards": header(tensors(a=[8, 0])) + bytes(8),
    "a huge shape": header(b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}'),
    "an unknown type": header(b'{"a":{"dtype":"X9","shape":[2],"data_offsets":[0,8]}}') + bytes(8),
    "no tensors": header(b"{}"),
    "cut short": save(GOOD)[:-1],
    "a tail": save(GOOD) + b"tail",
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_malformed_safetensors_are_refused(tmp_path, name):
    (tmp_path / "w.safetensors").write_bytes(SAFETENSORS[name])
    refused(tmp_path / "w.safetensors")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"words", b"PK\x03\x04", b"\x80\x02", b"\x80\x02}q\x00.", b"\x80\xff"]
)
def test_files_that_are_no_weights_are_refused(tmp_path, suffix, content):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated_checkpoints_are_refused(tmp_path, share):
    torch.save(GOOD, tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(whole[: int(share * len(whole))])
    refused(tmp_path / "w.pt")


def test_what_is_not_a_file_is_refused(tmp_path):
    (tmp_path / "folder.pt").mkdir()
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    for name in ("folder.pt", "pipe.pt", "loop.pt", "gone.pt"):
        assert "no such weights file" in refused(tmp_path / name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_tensor_that_only_claims_to_be_huge_takes_no_memory(tmp_path, dtype):
    torch.save({**GOOD, "fc.weight": torch.zeros(1, dtype=dtype).expand(2**50)}, tmp_path / "w.pt")
    assert os.path.getsize(tmp_path / "w.pt") < 10**7
    try:
        built(tmp_path / "w.pt")  # the classifier is above the cut: it may be anything
    except BackboneError:
        return


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_needed_tensor_that_only_claims_to_be_huge_is_refused(tmp_path, dtype):
    torch.save({**GOOD, "conv1.weight": torch.zeros(1, dtype=dtype).expand(2**50)}, tmp_path / "w.pt")
    refused(tmp_path / "w.pt")


ODD: dict[str, Tensor] = {
    "sparse": GOOD["conv1.weight"].to_sparse(),
    "complex": GOOD["conv1.weight"].to(torch.complex64),
    "integers": GOOD["conv1.weight"].to(torch.int64),
    "another shape": GOOD["conv1.weight"][:16],
    "a scalar": torch.tensor(1.0),
    "no content": GOOD["conv1.weight"].to("meta"),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_tensors_under_a_needed_name_are_refused(tmp_path, kind):
    torch.save({**GOOD, "conv1.weight": ODD[kind]}, tmp_path / "w.pt")
    refused(tmp_path / "w.pt")


def test_weights_of_another_architecture_are_refused_with_the_difference(tmp_path):
    class Other(nn.Sequential):
        pass

    torch.save(Other(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).state_dict(), tmp_path / "w.pt")
    message = refused(tmp_path / "w.pt")
    assert "missing (bn1.bias, bn1.running_mean, bn1.running_var, bn1.weight, ...)" in message
    assert "unexpected (0.bias, 0.weight, 1.bias, 1.num_batches_tracked, ...)" in message


def test_a_shape_that_does_not_fit_is_named_with_both_shapes(tmp_path):
    torch.save({**GOOD, "bn1.weight": torch.ones(16)}, tmp_path / "w.pt")
    assert "1 of another shape or type (bn1.weight (16,) for (32,))" in refused(tmp_path / "w.pt")


def test_a_renamed_layer_is_named(tmp_path):
    state = dict(GOOD)
    state["layer2.0.conv9.weight"] = state.pop("layer2.0.conv1.weight")
    torch.save(state, tmp_path / "w.pt")
    message = refused(tmp_path / "w.pt")
    assert "1 missing (layer2.0.conv1.weight)" in message
    assert "1 unexpected (layer2.0.conv9.weight)" in message


def test_checkpoints_of_training_scripts_and_other_heads_are_accepted(tmp_path):
    expected = built_key(GOOD, tmp_path / "plain.pt")
    head = {**GOOD, "fc.weight": torch.zeros(3, 128), "fc.bias": torch.zeros(3)}
    assert built_key({"state_dict": head, "epoch": 3}, tmp_path / "lightning.pt") == expected
    assert built_key({f"module.{name}": value for name, value in GOOD.items()}, tmp_path / "parallel.pt") == expected


def built_key(content: object, path: Path) -> str:
    torch.save(content, path)
    return built(path).recipe.key


def test_a_fresh_process_told_to_run_pickles_does_not_either(tmp_path):
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"a": Canary(tmp_path / "canary")}))
    code = (
        "import sys; from pathlib import Path; from extract.backbones import read_state; read_state(Path(sys.argv[1]))"
    )
    environment = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "w.pt")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "BackboneError" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "canary").exists()
    with pytest.raises(BackboneError):
        read_state(tmp_path / "w.pt")


def test_a_compressed_file_is_refused_before_it_is_unpacked(tmp_path):
    torch.save({"a": torch.zeros(1_000_000)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "w.pt", "w") as packed:
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "w.pt").stat().st_size < 100_000
    with pytest.raises(BackboneError, match="not a weights file"):
        read_state(tmp_path / "w.pt")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), legacy=st.booleans())
def test_any_damage_to_a_weights_file_is_an_error_of_ours_or_none(tmp_path_factory, at, byte, legacy):
    path = tmp_path_factory.mktemp("fuzz") / "w.pt"
    torch.save({"a": torch.arange(4.0), "b": torch.ones(2, 2)}, path, _use_new_zipfile_serialization=not legacy)
    data = bytearray(path.read_bytes())
    data[at % len(data)] = byte
    path.write_bytes(data)
    with contextlib.suppress(BackboneError):
        read_state(path)
