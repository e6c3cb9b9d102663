import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from extract import shard
from extract.backbones import open_backbone
from extract.channel import Crew
from extract.errors import StoreError
from extract.forward import Extractor, build_extractor
from extract.lanes import STAGES, Stream
from extract.loader import Loader, Sight
from extract.record import Record, Status
from extract.runners import prepare
from extract.runners.runner import Runner
from extract.shard import Receipt, write_shards
from extract.spec import BackboneSpec
from extract.store.shards import Rows, read_shard, shards_in
from extract.trace import Trace
from tests import instant
from tests.instant import Instant, Sums, digest_of, numbered
from tests.interrupt import interrupted, soon
from tests.tiny import put, tiny_spec

OURS = tuple(f"extract/{name}.py" for name in ("shard", "lanes", "loader", "batches", "channel"))


@pytest.fixture(scope="module")
def network() -> Extractor:
    return build_extractor(tiny_spec("", Path("cache")))


def records(folder: Path, n: int) -> list[Record]:
    return [Record(f"{i}.png", str(put(folder / f"{i}.png", i))) for i in range(n)]


def receipts_of(
    listed: Iterable[Record],
    given: Extractor,
    folder: Path,
    *,
    runner: Runner | None = None,
    batch_size: int = 3,
    most: int = 1000,
    n_lanes: int = 2,
    trace: Trace | None = None,
    on_rows: Callable[[int, int], None] = lambda *_: None,
) -> Iterator[Receipt]:
    """Write shards by a stream of its own, and yield the receipts."""
    runner = runner or prepare(given, batch_size=batch_size)
    with Loader(Sight.of(given.recipe), workers=2, batch_size=batch_size, trace=trace) as opened:
        stream = Stream(given, runner, opened, lanes=n_lanes, trace=trace)
        yield from write_shards(stream, listed, folder, most=most, on_rows=on_rows)


def made(listed: list[Record], given: Extractor, folder: Path, **options) -> Receipt:
    [receipt] = receipts_of(listed, given, folder, **options)
    return receipt


def sums(listed: list[Record], folder: Path, **options) -> list[Receipt]:
    """Write the shards of a stream without network."""
    return list(receipts_of(listed, instant.extractor(), folder, **{"runner": Sums(), **options}))


def stored(folder: Path, name: str, layer: str = "penultimate") -> np.ndarray:
    with h5py.File(folder / name) as file:
        return file[f"layers/{layer}"][:]


def digests(folder: Path, receipts: Iterable[Receipt], key: str | None = None) -> list[bytes]:
    """The content that shards know, in the order of their receipts."""
    key = key or instant.extractor().recipe.key
    return [bytes(each) for receipt in receipts for each in read_shard(folder / receipt.name, key).digests]


def test_rows_lie_where_their_records_stood(tmp_path, network):
    steps, listed = [], records(tmp_path, 8)
    receipt = made(listed, network, tmp_path / "out", on_rows=lambda *step: steps.append(step))
    assert (receipt.rows, receipt.bad, steps) == (8, 0, [(3, 0), (3, 0), (2, 0)])
    assert [path.name for path in shards_in(tmp_path / "out")] == [receipt.name]
    pixels = pixels_of(listed, network)
    for layer, plain in network.exact(pixels).items():
        rows = stored(tmp_path / "out", receipt.name, layer)
        off = np.linalg.norm(rows - plain, axis=1)
        assert (off <= 1e-5 * np.linalg.norm(plain, axis=1)).all()


def pixels_of(listed: list[Record], given: Extractor) -> Tensor:
    """The pixels of images, loaded in one batch."""
    with Loader(Sight.of(given.recipe), workers=1, batch_size=len(listed)) as opened, Crew() as crew:
        [batch] = opened.run(listed, crew)
        return batch.buffer.pixels


def test_a_receipt_says_what_was_done(tmp_path, decoder):
    began = time.time()
    first, last = sums(numbered(5), tmp_path, most=3)
    assert (first.rows, last.rows, first.runner) == (3, 2, "sums")
    assert set(first.stages.seconds) == set(STAGES)
    assert first.stages.seconds["read"] == 3 * 1.0 / 2
    assert first.stages.seconds["write"] > 0
    assert began <= first.span[0] <= first.span[1] <= time.time()
    assert first.span[0] <= last.span[0]


def test_a_shard_says_what_wrote_it(tmp_path, decoder):
    [receipt] = sums(numbered(2), tmp_path)
    assert (
        read_shard(tmp_path / receipt.name, instant.extractor().recipe.key).writer == '{"by": "sums", "runner": "sums"}'
    )


@pytest.mark.parametrize("n_lanes", [1, 3])
def test_a_shard_depends_on_its_arguments_only(tmp_path, decoder, n_lanes):
    one, other = sums(numbered(9), tmp_path / "one"), sums(numbered(9), tmp_path / "other", n_lanes=n_lanes)
    assert [receipt.name for receipt in one] == [receipt.name for receipt in other]
    for receipt in one:
        assert (tmp_path / "one" / receipt.name).read_bytes() == (tmp_path / "other" / receipt.name).read_bytes()


@pytest.mark.parametrize(
    ("most", "sizes"),
    [(3, [3] * 7 + [2]), (4, [3] * 7 + [2]), (6, [6, 6, 6, 5]), (7, [6, 6, 6, 5]), (23, [23]), (99, [23])],
)
def test_no_shard_has_more_rows_than_it_may(tmp_path, decoder, most, sizes):
    receipts = sums(numbered(23), tmp_path, most=most)
    assert [receipt.rows for receipt in receipts] == sizes
    assert digests(tmp_path, receipts) == list(map(digest_of, numbered(23)))


def test_rows_do_not_wait_for_a_full_shard_for_longer_than_they_may(tmp_path, decoder, monkeypatch):
    monkeypatch.setattr(shard, "SHARD_S", 0.0)
    receipts = sums(numbered(8), tmp_path)
    assert [receipt.rows for receipt in receipts] == [3, 3, 2]
    assert digests(tmp_path, receipts) == list(map(digest_of, numbered(8)))


def test_no_records_make_no_shard(tmp_path, decoder):
    assert sums([], tmp_path / "out") == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_a_bad_record_is_a_row_with_its_reason_and_moves_no_other(tmp_path, network, batch_size):
    listed = records(tmp_path, 4)
    (tmp_path / "text.png").write_text("no image")
    bad = [Record(name, str(tmp_path / name)) for name in ("text.png", "gone.png")]
    mixed = [bad[0], listed[0], listed[1], bad[1], listed[2], listed[3], bad[0]]
    receipt = made(mixed, network, tmp_path / "out", batch_size=batch_size)
    known = read_shard(tmp_path / "out" / receipt.name, network.recipe.key)
    rows = stored(tmp_path / "out", receipt.name)
    assert (receipt.rows, receipt.bad) == (7, 3)
    statuses = [Status.NOT_AN_IMAGE, 0, 0, Status.MISSING, 0, 0, Status.NOT_AN_IMAGE]
    assert known.status.tolist() == statuses
    assert [bool(reason) for reason in known.errors.tolist()] == [bool(status) for status in statuses]
    assert np.isnan(rows).all(1).tolist() == [bool(status) for status in statuses]
    expected = stored(tmp_path / "good", made(listed, network, tmp_path / "good").name)
    np.testing.assert_allclose(rows[known.status == 0], expected, rtol=1e-5, atol=1e-6)
    assert not known.digests[3].any()


def test_bad_rows_are_counted_as_they_come(tmp_path, decoder):
    steps = []
    gone = Record("gone", "")
    [receipt] = sums([gone, *numbered(3), gone], tmp_path, batch_size=2, on_rows=lambda *step: steps.append(step))
    assert steps == [(2, 1), (2, 0), (1, 1)]
    assert receipt.bad == 2


def test_a_shard_of_nothing_but_bad_records_is_one(tmp_path, network):
    receipt = made([Record("gone", str(tmp_path / "gone"))] * 3, network, tmp_path / "out")
    assert (receipt.rows, receipt.bad) == (3, 3)
    assert np.isnan(stored(tmp_path / "out", receipt.name)).all()


@pytest.mark.parametrize("store", ["float16", "float32"])
def test_what_the_stored_type_cannot_hold_is_a_bad_row_and_never_infinite(tmp_path, store):
    state = open_backbone(BackboneSpec("builtin", "none")).read()
    state["conv1.weight"].zero_()
    state["conv1.weight"][0, :, 1, 1] = 20_000  # the sum of the three normalised channels: about 6 for white
    torch.save(state, tmp_path / "loud.pt")
    loud = build_extractor(tiny_spec("", tmp_path, weights=str(tmp_path / "loud.pt"), taps=("conv1",), store=store))
    for name, level in (("dim", 125), ("white", 255)):
        Image.new("RGB", (32, 32), (level,) * 3).save(tmp_path / f"{name}.png")
    listed = [Record(name, str(tmp_path / f"{name}.png")) for name in ("dim", "white", "dim")]
    receipt = made(listed, loud, tmp_path / "out")
    known = read_shard(tmp_path / "out" / receipt.name, loud.recipe.key)
    rows = stored(tmp_path / "out", receipt.name, "conv1")
    assert rows.dtype == store
    if store == "float32":
        assert known.status.tolist() == [0, 0, 0]
        assert rows[1].max() > np.finfo(np.float16).max
    else:
        assert known.status.tolist() == [0, Status.NOT_FINITE, 0]
        assert b"float16" in known.errors[1]
        assert np.isnan(rows[1]).all()
        assert np.isfinite(rows[[0, 2]]).all()


def test_one_tap_out_of_range_takes_the_whole_row(tmp_path):
    state = open_backbone(BackboneSpec("builtin", "none")).read()
    state["layer3.1.bn2.bias"].fill_(1e6)
    torch.save(state, tmp_path / "loud.pt")
    loud = build_extractor(tiny_spec("", tmp_path, weights=str(tmp_path / "loud.pt"), store="float16"))
    receipt = made(records(tmp_path, 2), loud, tmp_path / "out")
    assert receipt.bad == 2
    assert np.isnan(stored(tmp_path / "out", receipt.name, "layer1")).all()


def test_views_and_maps_are_layers_of_the_shard(tmp_path, decoder):
    [receipt] = receipts_of(numbered(4), instant.extractor(views=3), tmp_path, runner=Sums())
    with h5py.File(tmp_path / receipt.name) as file:
        shapes = {name: values.shape for name, values in file["layers"].items()}
    maps = {f"corner:map{view}": (4, 3, 2, 2) for view in ("", "@1", "@2")}
    assert shapes == {**maps, **{f"sum{view}": (4, 3) for view in ("", "@1", "@2")}}


class Breaking(Sums):
    """Fails at the nth batch."""

    def __init__(self, nth: int, error: BaseException) -> None:
        self.left, self.error = nth, error

    def run(self, pixels: Tensor) -> dict[str, Tensor]:
        self.left -= 1
        if not self.left:
            raise self.error
        return super().run(pixels)


def test_an_exception_while_computing_leaves_no_file_of_what_was_not_full(tmp_path, decoder):
    with pytest.raises(ZeroDivisionError):
        sums(numbered(9), tmp_path / "out", runner=Breaking(2, ZeroDivisionError()))
    assert not (tmp_path / "out").exists()


def test_an_exception_while_computing_leaves_the_shards_that_were_full(tmp_path, decoder, monkeypatch):
    hold, real = threading.Event(), shard.write_shard

    def write(*given: object) -> str:
        assert hold.wait(30)
        return real(*given)

    def on_rows(*_: int) -> None:
        nonlocal batches
        batches += 1
        if batches == 3:
            hold.set()
            raise ZeroDivisionError

    batches = 0
    monkeypatch.setattr(shard, "write_shard", write)
    with pytest.raises(ZeroDivisionError):
        sums(numbered(9), tmp_path, most=3, on_rows=on_rows)
    assert len(list(shards_in(tmp_path))) == 2, "one that was being written, and one that waited"


def test_an_exception_while_writing_surfaces_and_ends_the_flow(tmp_path, decoder, monkeypatch):
    before, calls = threading.active_count(), []

    def write(*given: object) -> str:
        calls.append(given)
        raise StoreError("the disk is full")

    monkeypatch.setattr(shard, "write_shard", write)
    for n in (3, 200):
        with pytest.raises(StoreError, match="the disk is full"):
            sums(numbered(n), tmp_path, most=3)
        assert threading.active_count() <= before
    assert len(calls) == 2, "nothing is written after that"


def test_batches_are_computed_while_a_shard_is_written_and_never_too_many(tmp_path, decoder, monkeypatch):
    hold, real, computed, written = threading.Event(), shard.write_shard, [], []

    def write(*given: object) -> str:
        if not written:
            deadline = time.monotonic() + 30
            while len(computed) < 3 and time.monotonic() < deadline:
                time.sleep(0.001)
            hold.wait(0.05)
            assert len(computed) == 3, "one is written, one waits, and one is full"
        written.append(given)
        return real(*given)

    monkeypatch.setattr(shard, "write_shard", write)
    receipts = sums(numbered(60), tmp_path, most=3, on_rows=lambda *_: computed.append(1))
    assert digests(tmp_path, receipts) == list(map(digest_of, numbered(60)))


def test_receipts_come_while_others_are_still_computed(tmp_path, decoder):
    last = threading.Event()

    def answer(self: Instant):
        if self.waiting[0].id == "23":
            assert last.wait(30)
        return Instant.answer(self)

    decoder.answer = answer
    receipts = receipts_of(numbered(24), instant.extractor(), tmp_path, runner=Sums(), most=3)
    first = next(receipts)
    last.set()
    assert digests(tmp_path, [first, *receipts]) == list(map(digest_of, numbered(24)))


def test_a_caller_that_stops_early_leaves_no_thread(tmp_path, decoder):
    before = threading.active_count()
    receipts = receipts_of(numbered(60), instant.extractor(), tmp_path, runner=Sums(), most=3)
    next(receipts)
    receipts.close()
    assert threading.active_count() <= before


def test_a_trace_is_told_of_every_shard(tmp_path, decoder):
    trace = Trace()
    receipts = sums(numbered(8), tmp_path, most=3, trace=trace)
    spans = [event["args"] for event in trace._events if event["name"] == "shard"]
    assert spans == [{"file": receipt.name, "rows": receipt.rows} for receipt in receipts]


def interrupt_after(n: int) -> Callable[[int, int], None]:
    """Press Ctrl-C when n rows are done."""
    seen = 0

    def on_rows(rows: int, _: int) -> None:
        nonlocal seen
        seen += rows
        if seen >= n:
            signal.raise_signal(signal.SIGINT)

    return on_rows


def until_interrupted(listed: list[Record], given: Extractor, folder: Path, **options) -> list[Receipt]:
    """The receipts that come before the interrupt."""
    receipts = []
    with pytest.raises(KeyboardInterrupt):
        receipts.extend(each for each in kept_in(receipts, receipts_of(listed, given, folder, **options)))
    return receipts


def kept_in(kept: list[Receipt], receipts: Iterator[Receipt]) -> Iterator[Receipt]:
    for receipt in receipts:
        kept.append(receipt)
    yield from ()


@pytest.mark.parametrize(("after", "kept"), [(1, 3), (4, 6), (8, 8)])
def test_an_interrupt_keeps_the_rows_that_are_done(tmp_path, network, after, kept):
    listed, before = records(tmp_path, 8), threading.active_count()
    [receipt] = until_interrupted(listed, network, tmp_path / "out", on_rows=interrupt_after(after))
    assert receipt.rows == kept
    assert threading.active_count() <= before
    whole = made(listed, network, tmp_path / "whole")
    assert len(read_shard(tmp_path / "out" / receipt.name, network.recipe.key)) == kept
    rows = stored(tmp_path / "out", receipt.name)
    np.testing.assert_array_equal(rows, stored(tmp_path / "whole", whole.name)[:kept])


def test_an_interrupt_keeps_full_shards_and_the_one_that_is_being_filled(tmp_path, decoder):
    given = instant.extractor()
    receipts = until_interrupted(numbered(60), given, tmp_path, runner=Sums(), most=6, on_rows=interrupt_after(15))
    assert [receipt.rows for receipt in receipts] == [6, 6, 3]
    assert digests(tmp_path, receipts) == list(map(digest_of, numbered(15)))


def test_an_interrupt_before_the_first_rows_leaves_no_file(tmp_path, decoder):
    main = threading.get_ident()

    class Pressing(Sums):
        def run(self, pixels: Tensor) -> dict[str, Tensor]:
            signal.pthread_kill(main, signal.SIGINT)
            time.sleep(0.05)
            return super().run(pixels)

    given = instant.extractor()
    assert until_interrupted(numbered(2), given, tmp_path / "out", runner=Pressing()) == []
    assert not (tmp_path / "out").exists()


def test_an_interrupt_from_where_records_are_listed_keeps_what_is_done(tmp_path, decoder):
    def listed() -> Iterator[Record]:
        yield from numbered(9)
        assert soon(lambda: len(steps) == 3)
        raise KeyboardInterrupt

    decoder.full = property(lambda self: len(self.waiting) == 1)  # whoever waits for records holds none
    steps = []
    receipts = until_interrupted(
        listed(), instant.extractor(), tmp_path, runner=Sums(), on_rows=lambda *step: steps.append(step)
    )
    assert digests(tmp_path, receipts) == list(map(digest_of, numbered(9)))


def test_an_interrupt_while_the_shard_is_written_does_not_cost_it(tmp_path, decoder, monkeypatch):
    real, calls, main = shard.write_shard, [], threading.get_ident()

    def write(*given: object) -> str:
        calls.append(given)
        signal.pthread_kill(main, signal.SIGINT)
        time.sleep(0.05)
        return real(*given)

    monkeypatch.setattr(shard, "write_shard", write)
    [receipt] = until_interrupted(numbered(5), instant.extractor(), tmp_path / "out", runner=Sums())
    assert receipt.rows == 5
    assert [path.name for path in (tmp_path / "out").iterdir()] == [receipt.name]
    assert len(calls) == 1


def test_an_interrupt_writes_what_is_done_before_it_waits_for_the_lanes(tmp_path, decoder):
    """A batch in a lane may take a minute, and the command waits some seconds only."""
    release = threading.Event()

    class Slow(Sums):
        def run(self, pixels: Tensor) -> dict[str, Tensor]:
            if self.slow:
                assert release.wait(30)
            return super().run(pixels)

        slow = False

    def on_rows(*_: int) -> None:
        runner.slow = True
        signal.raise_signal(signal.SIGINT)

    runner = Slow()
    receipts = receipts_of(numbered(30), instant.extractor(), tmp_path, runner=runner, on_rows=on_rows)
    receipt = next(receipts)
    assert digests(tmp_path, [receipt]) == list(map(digest_of, numbered(3)))
    assert not release.is_set()
    release.set()
    with pytest.raises(KeyboardInterrupt):
        next(receipts)


class Disk:
    """Stands for the disk: what was written, shard by shard."""

    def __init__(self) -> None:
        self.shards: dict[str, list[bytes]] = {}

    def write(self, _: Path, rows: Rows, *__: object) -> str:
        n = len(rows.failures)
        assert {len(values) for values in rows.layers.values()} == {n}
        name = "-".join(str(int(value * 1024)) for value in rows.layers["sum"][:, 0])
        assert self.shards.setdefault(name, [bytes(each) for each in rows.digests]) == [bytes(d) for d in rows.digests]
        return name


def test_an_interrupt_at_whatever_point_keeps_a_prefix_and_all_that_is_done(tmp_path, decoder, monkeypatch):
    given, before = instant.extractor(), threading.active_count()
    expected, nth, happened = list(map(digest_of, numbered(9))), 0, True
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    while happened:
        nth += 1
        disk, receipts, done = Disk(), [], []
        monkeypatch.setattr(shard, "write_shard", disk.write)
        with Loader(Sight.of(given.recipe), workers=2, batch_size=2) as opened:
            stream = Stream(given, Sums(), opened, lanes=2)

            def work(stream=stream, receipts=receipts, done=done) -> None:
                on_rows = lambda rows, _: done.append(rows)  # noqa: E731
                for receipt in write_shards(stream, numbered(9), tmp_path, most=4, on_rows=on_rows):
                    receipts.append(receipt)

            happened = interrupted(work, OURS, nth)
            assert soon(lambda: threading.active_count() <= before), nth
        written = [digest for receipt in receipts for digest in disk.shards[receipt.name]]
        assert written == expected[: len(written)], nth
        assert len(written) >= sum(done), nth
        assert [receipt.name for receipt in receipts] == list(disk.shards), nth
    assert written == expected
    assert nth > 100


def test_the_rows_that_are_kept_are_whole(tmp_path, decoder, monkeypatch):
    """An interrupt between two layers of a batch: its rows are not there yet."""
    given = instant.extractor(views=3)
    real = shard.Filling.add

    def add(self, done) -> None:
        if self.n == 3:
            done = replace(done, rows={**done.rows, "no such layer": None})
        try:
            real(self, done)
        except KeyError:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(shard.Filling, "add", add)
    [receipt] = until_interrupted(numbered(9), given, tmp_path, runner=Sums())
    assert receipt.rows == 3
    assert np.isfinite(stored(tmp_path, receipt.name, "sum@2")).all()
