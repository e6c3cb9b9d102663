import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from extract.channel import Crew
from extract.engines import engine_of, local, processes
from extract.errors import OptionError
from extract.forward import Extractor, build_extractor
from extract.loader import Loader, Sight
from extract.progress import Silent
from extract.record import Record
from extract.spec import ExtractSpec
from extract.store.shards import shards_in
from tests.tiny import put, tiny_spec

N = 10


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> list[Record]:
    folder = tmp_path_factory.mktemp("images")
    return [Record(f"{i}.png", str(put(folder / f"{i}.png", i))) for i in range(N)]


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return build_extractor(tiny_spec("", Path("cache"), taps=("penultimate",)))


def spec_of(**changes: Any) -> ExtractSpec:
    return tiny_spec("", Path("cache"), **{"compile": "none", **changes})


def rows_of(folder: Path, names: list[str]) -> np.ndarray:
    rows = []
    for name in names:
        with h5py.File(folder / name) as file:
            rows.append(file["layers/penultimate"][:])
    return np.concatenate(rows)


@pytest.mark.parametrize(("device", "engine"), [("cpu", local.run), ("cpu,cpu", processes.run)])
def test_several_devices_take_the_engine_of_processes(device, engine):
    assert engine_of(spec_of(device=device)) is engine


def test_neither_batch_size_nor_workers_nor_lanes_change_a_row(tmp_path, records, extractor, monkeypatch):
    expected = extractor.exact(pixels_of(records))["penultimate"]
    monkeypatch.setattr(local.golden, "prove", lambda *_: None)  # the rows themselves are proven here
    for batch_size, workers, lanes in ((1, 1, 1), (1, 4, 3), (3, 4, 1), (3, 1, 3), (8, 2, 2)):
        monkeypatch.setattr(local, "lanes_on", lambda *_, lanes=lanes: lanes)
        spec = spec_of(batch_size=batch_size, workers=workers)
        folder = tmp_path / f"{batch_size}-{workers}-{lanes}" / "shards"
        receipts = list(local.run([records[:6], records[6:]], extractor, folder, spec, Silent()))
        rows = rows_of(folder, [receipt.name for receipt in receipts])
        assert np.linalg.norm(rows - expected, axis=1).max() <= 1e-5 * np.linalg.norm(expected, axis=1).min()


def pixels_of(records: list[Record]) -> torch.Tensor:
    preset = build_extractor(spec_of()).recipe.preprocessing
    with Loader(Sight(preset), workers=1, batch_size=N) as loader, Crew() as crew:
        [batch] = loader.run(records, crew)
        return batch.buffer.pixels.clone()


def test_nothing_to_do_opens_nothing(tmp_path, extractor, monkeypatch):
    monkeypatch.setattr(local, "open_stream", lambda *_: pytest.fail("there is nothing to compute"))
    assert list(local.run([], extractor, tmp_path / "shards", spec_of(), Silent())) == []


class Watcher(Silent):
    """Does something once so many rows are done."""

    def __init__(self, at: int, do: Callable[[], object]) -> None:
        self.at, self.do, self.rows = at, do, 0

    def advance(self, steps: int, bad: int = 0) -> None:
        self.rows += steps
        if self.rows - steps < self.at <= self.rows:
            self.do()


@pytest.mark.usefixtures("no_thread_left")
def test_ctrl_c_keeps_what_is_done_and_leaves_no_thread(tmp_path, records, extractor):
    threads, kept = torch.get_num_threads(), []
    watcher = Watcher(3, lambda: signal.raise_signal(signal.SIGINT))
    receipts = local.run([records], extractor, tmp_path / "shards", spec_of(batch_size=1), watcher)
    with pytest.raises(KeyboardInterrupt):
        kept.extend(receipt.rows for receipt in receipts)
    assert kept == [3]
    assert len(list(shards_in(tmp_path / "shards"))) == 1
    assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("no_thread_left")
def test_an_engine_that_is_left_leaves_no_thread(tmp_path, records, extractor):
    receipts = local.run([records[:2], records[2:]], extractor, tmp_path / "shards", spec_of(batch_size=1), Silent())
    assert next(receipts).rows == N - 2
    receipts.close()


@pytest.mark.usefixtures("no_thread_left")
def test_an_error_of_the_network_comes_out(tmp_path, records, extractor, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the network is upset")

    monkeypatch.setattr(local.golden, "prove", lambda *_: None)
    monkeypatch.setattr("extract.runners.network.Network.forward", fail)
    with pytest.raises(RuntimeError, match="upset"):
        list(local.run([records], extractor, tmp_path / "shards", spec_of(), Silent()))


def test_a_trace_tells_of_every_image_batch_and_shard(tmp_path, records, extractor):
    spec = spec_of(batch_size=2, profile=tmp_path / "trace.json")
    receipts = list(local.run([records], extractor, tmp_path / "shards", spec, Silent()))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    spans = [(event["name"], event["args"]) for event in events if event["ph"] == "X"]
    assert {args["id"] for name, args in spans if name == "image"} >= {record.id for record in records}
    assert sum(args["images"] for name, args in spans if name == "batch") == N + len(local.golden.NAMES)
    assert [args["file"] for name, args in spans if name == "shard"] == [receipt.name for receipt in receipts]


def test_a_trace_that_cannot_be_written_is_told_before_any_work(tmp_path, records, extractor):
    spec = spec_of(profile=tmp_path / "nowhere" / "trace.json")
    with pytest.raises(OptionError, match=r"the trace cannot be written.*--profile"):
        list(local.run([records], extractor, tmp_path / "shards", spec, Silent()))
    assert not (tmp_path / "shards").exists()


def test_a_probe_measures_and_writes_nothing(tmp_path, records, extractor, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert local.probe([records[:4], records[4:]], extractor, spec_of()) > 0
    assert local.probe([records[:1]], extractor, spec_of()) > 0
    assert not list(tmp_path.iterdir())


def test_a_probe_opens_what_one_of_several_devices_has_and_counts_all(records, extractor, monkeypatch):
    opened = []

    @contextmanager
    def open_stream(_: Extractor, spec: ExtractSpec, work: local.Work) -> Iterator[None]:
        opened.append((spec.workers, spec.compile, spec.batch_size, work.n_images, work.share))
        yield

    monkeypatch.setattr(local, "open_stream", open_stream)
    monkeypatch.setattr(local, "lanes_on", lambda _, share: 2 // share)
    monkeypatch.setattr(local, "_speed", lambda *_: 7.0)
    assert local.probe([records * 30], extractor, spec_of(workers=4, compile="auto")) == 7
    assert local.probe([records], extractor, spec_of(workers=4, device="cpu,cpu", batch_size=1)) == 14
    assert opened == [(4, "none", 8, 128, 1), (2, "none", 1, 8, 2)]


@pytest.mark.parametrize(
    ("seconds", "lanes", "speed"),
    [
        ([4, 4, 6, 6, 8, 8], 2, 4 * 4 / 4),  # the first two, which came together, do not count
        ([4, 4, 6], 2, 3 * 4 / 6),  # too few to leave any out
        ([2], 2, 4 / 2),
        ([4, 4, 4.5, 4.5], 2, 4 * 4 / 4.5),  # one round more, whose batches come together, is no measure
        ([3, 4, 5, 9, 10, 11], 1, 3 * 4 / 6),  # it takes too long: the rest is left
    ],
)
def test_the_speed_of_a_probe_leaves_out_the_start(seconds, lanes, speed, monkeypatch):
    clock = iter([0.0, *map(float, seconds)])
    monkeypatch.setattr(local, "PROBE_S", 8.5)
    monkeypatch.setattr(local.time, "perf_counter", lambda: next(clock))
    stream = SimpleNamespace(run=lambda records: (SimpleNamespace(items=[0] * 4) for _ in records))
    assert local._speed(stream, seconds, lanes) == pytest.approx(speed)


def test_a_gpu_takes_more_at_once_and_leaves_loading_less(records, extractor, monkeypatch):
    """What a stream is opened with, for the device that is asked for, without one."""
    seen = []

    class Noted(Loader):
        def __init__(self, sight, *, on_gpu, **options) -> None:
            seen.append((options["batch_size"], options["buffers"], options["workers"], on_gpu))
            super().__init__(sight, on_gpu=False, **options)

    monkeypatch.setattr(local, "Loader", Noted)
    monkeypatch.setattr(local, "lanes_on", lambda *_: 2)
    monkeypatch.setattr(local, "prepare", lambda *_, **__: None)
    for device in ("cpu", "cuda"):
        with local.open_stream(
            replace(extractor, device=torch.device(device)), spec_of(workers=3), local.Work([], 9000)
        ):
            pass
    with local.open_stream(extractor, spec_of(workers=3), local.Work(records, 2)):
        pass
    assert seen[0][1:] == (4, 3, False)
    assert seen[1][1:] == (4, 3, True)
    assert seen[1][0] > seen[0][0]
    assert seen[2] == (1, 4, 2, False), "no more than there is to do"
