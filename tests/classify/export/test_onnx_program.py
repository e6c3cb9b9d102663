import errno
import importlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import CLASSES, tiny_bundle, tiny_features

from classify.bundle import Bundle
from classify.conformal import Abstain, Conformal
from classify.export import onnx_program, torch_program
from classify.export.facts import ProgramFile, facts_of
from classify.export.int8 import to_int8
from classify.export.program import Program
from extract.errors import ExportError, OptionError
from extract.forward import Extractor, rebuild_extractor

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

HERE = str(Path(__file__).parents[3]).encode()


@pytest.fixture(scope="module")
def extractor(tmp_path_factory) -> tuple[Bundle, Extractor]:
    features = tiny_features(tmp_path_factory.mktemp("onnx"))
    known = {
        "conformal": Conformal(0.1, (0.7, 0.7, 0.7), False, 99),
        "abstain": Abstain(0.6, 0.9, "accuracy", 0.5, 0.9),
    }
    bundle = tiny_bundle(features, **known)
    return bundle, rebuild_extractor(features.recipe, features.weights_path, device="cpu")


@pytest.fixture(scope="module")
def made(extractor) -> torch.export.ExportedProgram:
    bundle, network = extractor
    return torch_program.traced(Program(bundle, network).eval(), side_of(network))


@pytest.fixture(scope="module")
def file(extractor, made) -> ProgramFile:
    return onnx_program.to_onnx(made, facts_of(extractor[0]))


def side_of(network: Extractor) -> int:
    return network.recipe.preprocessing.crop_size


def noise(n: int, side: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, 3, side, side), np.uint8)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_any_number_of_images_is_answered_as_by_the_run(extractor, file, n):
    bundle, network = extractor
    pixels = noise(n, side_of(network))
    given = onnx_program.OnnxProgram(file.data)(pixels)
    expected = bundle.probabilities(network.exact(torch.from_numpy(pixels)))
    np.testing.assert_allclose(given, expected, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_file_of_torch_answers_the_same(extractor, made, n):
    bundle, network = extractor
    pixels = noise(n, side_of(network))
    data = torch_program.to_torch(made, facts_of(bundle)).data
    expected = bundle.probabilities(network.exact(torch.from_numpy(pixels)))
    np.testing.assert_allclose(torch_program.TorchProgram(data)(pixels), expected, atol=1e-5)
    assert HERE not in data


def test_a_program_says_how_to_use_it(extractor, file):
    model = onnx.load_from_string(file.data)
    onnx.checker.check_model(model)
    facts = {each.key: each.value for each in model.metadata_props}
    assert json.loads(facts["classes"]) == CLASSES
    preset = extractor[1].recipe.preprocessing
    assert (facts["resize_size"], facts["crop_size"]) == (str(preset.resize_size), str(preset.crop_size))
    assert facts["interpolation"] == preset.interpolation
    assert facts["features_key"] == extractor[0].recipe.key
    thresholds = json.loads(facts["thresholds"])
    assert thresholds["answer_from"] == 0.6
    assert thresholds["set"] == {"alpha": 0.1, "one_minus_probability_up_to": [0.7, 0.7, 0.7]}
    assert thresholds["labels_from"] is None
    [opset] = model.opset_import
    assert (opset.domain, opset.version) == ("", onnx_program.OPSET)
    [pixels], [shares] = model.graph.input, model.graph.output
    assert [dim.dim_param or dim.dim_value for dim in pixels.type.tensor_type.shape.dim] == ["images", 3, 32, 32]
    assert [dim.dim_param or dim.dim_value for dim in shares.type.tensor_type.shape.dim] == ["images", 3]


def test_a_program_names_no_folder_of_this_machine(file):
    assert HERE not in file.data
    assert b"stack_trace" not in file.data


def test_only_the_networks_own_nodes_are_for_int8(file):
    kinds = {node.op_type for node in onnx.load_from_string(file.data).graph.node if node.name in file.network}
    assert "Conv" in kinds
    assert not kinds & {"Softmax", "MatMul", "Gemm", "Cast"}


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch):
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(OptionError, match=r"onnxruntime is not installed.*offshelf\[export\]"):
        onnx_program.need("onnxruntime.quantization")


def test_a_network_that_cannot_be_traced_is_refused():
    class Odd(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.float() if pixels.sum() > 3 else pixels.double()

    with pytest.raises(ExportError, match=r"torch\.export cannot take it"):
        torch_program.traced(Odd(), 4)  # pyright: ignore[reportArgumentType]


def test_an_operator_without_a_counterpart_is_an_error_of_ours(monkeypatch, made):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator\nand much more")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ExportError, match=r"cannot translate it \(no such operator\).*--format torch"):
        onnx_program.to_onnx(made, {})


def test_no_room_for_temporary_files_is_said_with_a_remedy(file, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/scratch")

    monkeypatch.setattr("classify.export.int8.tempfile.TemporaryDirectory", full)
    with pytest.raises(ExportError, match=r"/scratch: no temporary files can be written \(No space left.*TMPDIR"):
        to_int8(file, [])


@pytest.mark.parametrize("n", [1, 3, 32])
def test_any_number_of_images_is_answered_as_each_alone(file, n):
    program = onnx_program.OnnxProgram(file.data)
    pixels = np.random.default_rng(n).integers(0, 256, (n, 3, 32, 32), np.uint8)
    alone = np.concatenate([program(pixels[i : i + 1]) for i in range(n)])
    assert program(pixels).shape == (n, len(CLASSES))
    assert np.abs(program(pixels) - alone).max() < 1e-5
