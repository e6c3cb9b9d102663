"""The program as `torch.export` has it: a `.pt2` file for PyTorch alone."""

import io
import json
from collections.abc import Mapping

import numpy as np
import torch
from torch.export import Dim, ExportedProgram, export, load, save

from classify.export.facts import PIXELS, ProgramFile
from classify.export.program import Program
from extract.devices import full_fp32
from extract.errors import ExportError, first_line

FACTS = "offshelf.json"
"""The file inside a `.pt2` that holds the facts."""


def traced(program: Program, side: int) -> ExportedProgram:
    """Trace a program for any number of images of `side` x `side` pixels; raises ExportError where it cannot be.

    Where in our files an operator was written stays out of it: that would name folders of this machine.
    """
    example = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    try:
        with torch.no_grad():
            made = export(program, (example,), dynamic_shapes={PIXELS: {0: Dim("images", min=1)}}, strict=False)
    except Exception as error:  # exporters meet networks that nobody has tried: they fail in any way
        said = f"torch.export cannot take it ({first_line(error)})"
        raise ExportError(said, where="the network", remedy="Take another --model, one of torchvision's") from error
    for module in made.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)
    return made


def to_torch(made: ExportedProgram, facts: Mapping[str, str]) -> ProgramFile:
    """Write a traced program with its facts."""
    file = io.BytesIO()
    save(made, file, extra_files={FACTS: json.dumps(facts)})
    return ProgramFile(file.getvalue())


class TorchProgram:
    """A program read back from its bytes."""

    def __init__(self, data: bytes) -> None:
        self._module = load(io.BytesIO(data)).module()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Answer for images: (n, 3, S, S) uint8 -> (n, C) float32."""
        with torch.inference_mode(), full_fp32():
            return self._module(torch.from_numpy(pixels)).numpy()
