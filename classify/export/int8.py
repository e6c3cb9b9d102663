"""The network of a program in int8: weights and activations of 8 bits, by the ranges that images take."""

import contextlib
import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from classify.export.facts import PIXELS, ProgramFile
from classify.export.onnx_program import need
from extract.errors import ExportError, first_line

RANGE_IMAGES = 128
"""Whose activations give the ranges: more change them little, and cost a pass of the fp32 network each."""


def to_int8(file: ProgramFile, batches: Iterable[np.ndarray]) -> bytes:
    """Quantise the network of a program, statically: batches of pixels (n, 3, S, S) uint8 -> another ONNX file.

    Weights by channel, activations by tensor between the least and the largest value seen; what comes before and after
    the network stays as it is. Raises ExportError where onnxruntime cannot.
    """
    tools = need("onnxruntime.quantization")
    with _scratch() as folder, _hushed():
        path = folder / "int8.onnx"
        try:
            ready = _prepared(file.data, folder / "ready.onnx")
            tools.quantize_static(
                str(ready),
                str(path),
                _Reader(batches),
                quant_format=tools.QuantFormat.QDQ,
                per_channel=True,
                nodes_to_quantize=list(file.network),
            )
        except OSError:
            raise
        except Exception as error:  # it meets networks that nobody has tried: it fails in any way
            said = f"onnxruntime cannot quantise it ({first_line(error)})"
            raise ExportError(said, where="the network", remedy="Leave --int8 out") from error
        return path.read_bytes()


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """Make a temporary folder; raises ExportError where there is no room for what is put into it."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except OSError as error:
        said = f"no temporary files can be written ({error.strerror or error})"
        where = str(error.filename or "the folder for temporary files")
        raise ExportError(said, where=where, remedy="Make room there, or let TMPDIR name another") from error


def _prepared(data: bytes, path: Path) -> Path:
    """Write a program with the shapes of all that it computes, as the quantiser wants it."""
    onnx, shapes = need("onnx"), need("onnxruntime.quantization.shape_inference")
    shapes.quant_pre_process(onnx.load_from_string(data), str(path), skip_optimization=True, skip_symbolic_shape=True)
    return path


class _Reader:
    """Batches, as the quantiser asks for them."""

    def __init__(self, batches: Iterable[np.ndarray]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {PIXELS: batch}


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keep the quantiser's advice to its developers, which goes to the root logger, from the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
