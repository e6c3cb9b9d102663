"""The program as ONNX: one file for any runtime that reads it, onnxruntime first of all."""

import importlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from classify.export.facts import PIXELS, PROBABILITIES, ProgramFile
from extract.errors import ExportError, OptionError, first_line

OPSET = 18
"""The operators of ONNX 1.13 (2022): what torch's exporter writes, and every onnxruntime since 1.14 reads."""

MAX_BYTES = (2 << 30) - 1
"""Of one file: what protobuf can hold."""

NEEDED = ("onnx", "onnxscript", "onnxruntime")
"""The packages of the extra."""

NETWORK = "network.cut"
"""The module of a program whose nodes may be quantised: the cut network, without what comes before and after."""

SCOPES = "pkg.torch.onnx.name_scopes"


def to_onnx(made: ExportedProgram, facts: Mapping[str, str]) -> ProgramFile:
    """Translate a traced program; raises ExportError where an operator has no counterpart, or it is too large."""
    try:
        with warnings.catch_warnings():
            # The exporter and what it is written in warn of their own age, which nobody here can mend.
            warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))
            found = torch.onnx.export(
                made,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[PIXELS],
                output_names=[PROBABILITIES],
                external_data=False,
            )
        model: Any = found.model_proto  # pyright: ignore[reportOptionalMemberAccess]
    except Exception as error:  # exporters meet networks that nobody has tried: they fail in any way
        said = f"torch.onnx cannot translate it ({first_line(error)})"
        raise ExportError(said, where="the network", remedy="Take --format torch") from error
    return _finished(model, facts)


def _finished(model: Any, facts: Mapping[str, str]) -> ProgramFile:
    """Name the batch, put the facts in, and take out where our own files lie on this machine."""
    network = tuple(node.name for node in model.graph.node if NETWORK in _scopes(node))
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output, model.graph):
        del part.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "images"
    del model.graph.value_info[:]  # they call the batch otherwise, and runtimes infer them anew
    del model.metadata_props[:]
    for name, text in facts.items():
        model.metadata_props.add(key=name, value=text)
    if model.ByteSize() > MAX_BYTES:
        said = f"{model.ByteSize():,} bytes are more than an ONNX file can hold"
        raise ExportError(said, where="the network", remedy="Take --format torch")
    return ProgramFile(model.SerializeToString(), network)


def _scopes(node: Any) -> str:
    return next((each.value for each in node.metadata_props if each.key == SCOPES), "")


class OnnxProgram:
    """A program as onnxruntime runs it, on the CPU."""

    def __init__(self, data: bytes) -> None:
        runtime = need("onnxruntime")
        runtime.disable_telemetry_events()
        self._session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Answer for images: (n, 3, S, S) uint8 -> (n, C) float32."""
        return self._session.run([PROBABILITIES], {PIXELS: pixels})[0]


def need(name: str) -> Any:
    """Import what comes with the extra; raises OptionError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        remedy = "pip install 'offshelf[export]', or take --format torch"
        raise OptionError(f"{name.partition('.')[0]} is not installed", remedy=remedy) from error
