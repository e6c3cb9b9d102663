"""The network compiled by OpenVINO, for CPUs: some seconds once, then kernels fused across layers."""

import importlib
import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram, default_decompositions, export

from extract.errors import OffshelfError, OptionError, RunnerError, first_line
from extract.forward import Extractor
from extract.runners.chunks import Chunked, Limit
from extract.runners.network import build_to_compile, rounded
from extract.runners.padded import Padded, Run, blank
from extract.runners.runner import Lane

REMEDY = "Take --compile none"
HINTS = {"fp32": "f32", "bf16": "bf16"}
"""What OpenVINO calls our precisions."""

ALONE = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
"""So a compiled network runs in the thread that calls it, and in no other. Pinned, all lanes would share one core."""

_CONVERTING = threading.Lock()


class OpenVino:
    """One converted network, compiled anew for each lane: two calls of a compiled one would wait for each other."""

    name = "openvino"

    def __init__(self, extractor: Extractor, *, batch_size: int) -> None:
        self._openvino = _import("openvino")
        if extractor.device.type != "cpu":
            raise OptionError("openvino runs on a CPU only", remedy="Take --compile inductor, or --device cpu")
        self._recipe = extractor.recipe
        self._taps = [name for name in extractor.shapes if "@" not in name]
        self._network = _Rows(build_to_compile(extractor, "fp32"))
        self._limit = Limit(batch_size)
        self._models: dict[int, Any] = {}
        self._model(batch_size)

    def lane(self) -> Lane:
        """Return a lane for the thread that asks."""
        return Chunked(self._build, self._limit, whole=True)

    def _build(self, size: int) -> Lane:
        batch = blank(size, self._recipe.preprocessing.crop_size, torch.device("cpu"))
        config = {**ALONE, "INFERENCE_PRECISION_HINT": HINTS[self._recipe.precision]}
        request = self._openvino.Core().compile_model(self._model(size), "CPU", config).create_infer_request()
        request.set_input_tensor(self._openvino.Tensor(_as_rows(batch).numpy(), shared_memory=True))
        return Padded(self._runs(request), batch)

    def _runs(self, request: Any) -> Run:
        """Return what runs a request on its own input; the rows lie in its memory."""

        def run(_: Tensor) -> dict[str, Tensor]:
            request.infer()
            rows = [torch.from_numpy(request.get_output_tensor(i).data) for i in range(len(self._taps))]
            return rounded(dict(zip(self._taps, rows, strict=True)), self._recipe.store)

        return run

    def _model(self, size: int) -> Any:
        """Convert the network for batches of one size, once."""
        with _CONVERTING:
            if size not in self._models:
                try:
                    pixels = _as_rows(blank(size, self._recipe.preprocessing.crop_size, torch.device("cpu")))
                    self._models[size] = _converted(export(self._network, (pixels,)))
                except OffshelfError:
                    raise
                except Exception as error:  # a converter meets networks that nobody has tried: it fails in any way
                    said = f"openvino cannot take this network ({first_line(error)})"
                    raise RunnerError(said, where=self._recipe.model, remedy=REMEDY) from error
            return self._models[size]


class _Rows(nn.Module):
    """A network that takes rows of pixels (n, S, S, 3) uint8 and gives a list, in the order of taps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network

    def forward(self, pixels: Tensor) -> list[Tensor]:
        return list(self._network(pixels.permute(0, 3, 1, 2)).values())


def _as_rows(batch: Tensor) -> Tensor:
    """(n, 3, S, S), channels last -> (n, S, S, 3), the same memory."""
    return batch.permute(0, 2, 3, 1)


def _converted(program: ExportedProgram) -> Any:
    """Convert as `openvino.convert_model` does, but without reporting to OpenVINO's makers that it was done."""
    keeps = _import("openvino.frontend.pytorch.torchdynamo.export_decompositions").ops_to_not_decompose()
    table = default_decompositions()
    for op in keeps:
        table.pop(op, None)  # some are of other versions of PyTorch
    graph = program.run_decompositions(table).module()
    decoder = _import("openvino.frontend.pytorch.fx_decoder").TorchFXPythonDecoder(graph, dynamic_shapes=False)
    frontend = _import("openvino.frontend").FrontEndManager().load_by_framework("pytorch")
    return frontend.convert(frontend.load(decoder))


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        said = "openvino is not installed, or of another version"
        raise OptionError(said, remedy="pip install 'offshelf[openvino]', or take --compile none") from error
