"""What inductor and OpenVINO have in common, and CUDA graphs as far as a CPU shows them."""

import importlib.util
import logging

import pytest
import torch
from torch import Tensor

from extract.errors import OptionError, RunnerError
from extract.runners import cuda_graph, prepare
from extract.runners.inductor import has_cpp_compiler
from extract.runners.padded import Padded, blank
from tests.extract.runners.nets import TOLERANCE, assert_close, in_lanes, named, pixels

openvino = pytest.mark.skipif(not importlib.util.find_spec("openvino"), reason="openvino is not installed")
inductor = pytest.mark.skipif(not has_cpp_compiler(), reason="there is no C++ compiler")
TAPS = "layer1", "layer2.0.conv1", "layer2.0.bn2:max", "layer2:map", "penultimate"
CASES = [
    pytest.param("inductor", "builtin", TAPS, marks=inductor),
    pytest.param("openvino", "builtin", TAPS, marks=openvino),
    pytest.param("openvino", "mobilenet_v2", ("features.3", "penultimate"), marks=openvino),
    pytest.param("openvino", "squeezenet1_1", ("features.3", "features.5:spp", "penultimate"), marks=openvino),
    pytest.param("openvino", "densenet121", ("features.norm0", "penultimate:max"), marks=openvino),
]
STORES = {"fp32": "float32", "bf16": "float16"}


@pytest.mark.parametrize("precision", STORES)
@pytest.mark.parametrize(("compiler", "model", "taps"), CASES)
def test_lanes_side_by_side_give_the_rows_of_the_plain_reference(compiler, model, taps, precision):
    extractor = named(model, *taps, precision=precision)
    runner = prepare(extractor, batch_size=4, compiler=compiler)
    assert runner.name == compiler
    sizes, found = (4, 3, 1), {}

    def work(i):
        return lambda lane: [found.setdefault((i, n), lane(pixels(extractor, n, seed=i))) for n in sizes]

    in_lanes(runner, [work(i) for i in range(3)])
    assert len(found) == 9
    for (i, n), rows in found.items():
        assert_close(rows, extractor.exact(pixels(extractor, n, seed=i)), TOLERANCE[precision])
        assert all(values.dtype == getattr(torch, STORES[precision]) for values in rows.values())


@inductor
def test_nothing_is_compiled_again_in_a_lane():
    from torch._dynamo.utils import counters

    extractor = named("builtin", "layer1")
    runner = prepare(extractor, batch_size=2, compiler="inductor")
    before = counters["stats"]["unique_graphs"]
    in_lanes(runner, [lambda lane: lane(pixels(extractor, 2))] * 2)
    assert counters["stats"]["unique_graphs"] == before > 0


@pytest.mark.parametrize(
    "compiler", [pytest.param("openvino", marks=openvino), pytest.param("inductor", marks=inductor)]
)
def test_a_network_that_the_compiler_does_not_take_is_an_error_of_ours(compiler, monkeypatch):
    def fail(*_: object) -> None:
        raise ValueError("no such operator\nand more")

    monkeypatch.setattr("extract.runners.network.Network.forward", fail)
    with pytest.raises(RunnerError, match=r"(?s)no such operator[^\n]*--compile none"):
        prepare(named("builtin", "layer1"), batch_size=2, compiler=compiler)


def test_without_a_cpp_compiler_inductor_says_what_to_install(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(OptionError, match="Install g"):
        prepare(named("builtin", "layer1"), batch_size=2, compiler="inductor")


def test_without_openvino_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(OptionError, match=r"offshelf\[openvino\]"):
        prepare(named("builtin", "layer1"), batch_size=2, compiler="openvino")


@openvino
def test_openvino_tells_nobody_that_it_ran(monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.startswith("openvino_telemetry")]:
        monkeypatch.delitem(sys.modules, name)
    prepare(named("builtin", "layer1"), batch_size=1, compiler="openvino")
    assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]


def test_a_batch_is_filled_up_and_its_rows_are_copies():
    given = []

    def run(pixels: Tensor) -> dict[str, Tensor]:
        given.append(pixels.clone())
        rows.copy_(pixels.float().mean((1, 2, 3))[:, None])
        return {"a": rows}

    rows = torch.zeros(4, 1)
    static = blank(4, 8, torch.device("cpu"))
    assert static.is_contiguous(memory_format=torch.channels_last)
    lane = Padded(run, static)
    first = lane(torch.full((3, 3, 8, 8), 7, dtype=torch.uint8))["a"]
    second = lane(torch.full((1, 3, 8, 8), 9, dtype=torch.uint8))["a"]
    assert first.tolist() == [[7.0]] * 3
    assert second.tolist() == [[9.0]]
    assert [tuple(pixels.shape) for pixels in given] == [(4, 3, 8, 8)] * 2


class Replayed:
    """Stands for a recorded graph: it computes again what was recorded."""

    def __init__(self, run, batch: Tensor, rows: dict[str, Tensor]) -> None:
        self._run, self._batch, self._rows = run, batch, rows

    def replay(self) -> None:
        for name, values in self._run(self._batch).items():
            self._rows[name].copy_(values)


def doubled(pixels: Tensor) -> dict[str, Tensor]:
    return {"a": 2.0 * pixels.float().mean((1, 2, 3))[:, None]}


def test_a_recording_is_replayed_on_its_own_batch(monkeypatch):
    def record(run, batch: Tensor) -> tuple[Replayed, dict[str, Tensor]]:
        rows = run(batch)
        return Replayed(run, batch, rows), rows

    monkeypatch.setattr(cuda_graph, "_record", record)
    monkeypatch.setattr(torch.cuda, "device", lambda _: torch.inference_mode())
    static = blank(4, 8, torch.device("cpu"))
    lane = Padded(cuda_graph.recorded(doubled, static), static)
    for value in (3, 5):
        assert lane(torch.full((2, 3, 8, 8), value, dtype=torch.uint8))["a"].tolist() == [[2.0 * value]] * 2


def test_without_a_recording_the_lane_goes_on_and_warns(monkeypatch, caplog):
    def refuse(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(cuda_graph, "_record", refuse)
    monkeypatch.setattr(torch.cuda, "device", lambda _: torch.inference_mode())
    assert cuda_graph.recorded(doubled, blank(4, 8, torch.device("cpu"))) is doubled
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "no CUDA graph: operation not permitted when stream is capturing; the network runs without one"
    )


def test_memory_that_lacks_while_recording_is_not_hidden(monkeypatch):
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(cuda_graph, "_record", refuse)
    monkeypatch.setattr(torch.cuda, "device", lambda _: torch.inference_mode())
    with pytest.raises(torch.OutOfMemoryError):
        cuda_graph.recorded(doubled, blank(4, 8, torch.device("cpu")))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("compiler", ["none", "inductor"])
def test_a_gpu_gives_the_rows_of_the_plain_reference(compiler, precision, caplog):
    extractor = named("resnet18", "layer1", "penultimate", precision=precision, store="float32", device="cuda")
    runner = prepare(extractor, batch_size=4, compiler=compiler)
    batches, found = [pixels(extractor, n, seed=n).cuda() for n in (4, 3)], {}

    def work(i):
        def run(lane) -> None:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.default_stream())
            with torch.cuda.stream(stream):
                for turn in range(3):
                    found[i, turn] = {name: values.cpu() for name, values in lane(batches[i]).items()}

        return run

    in_lanes(runner, [work(i) for i in range(2)])
    assert "no CUDA graph" not in caplog.text
    for (i, _), rows in found.items():
        assert_close(rows, extractor.exact(batches[i]), {"fp32": 1e-4, "bf16": 3e-2}[precision])
