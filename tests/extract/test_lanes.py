import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from extract import batches, pixels
from extract.channel import Crew
from extract.decoding import NO_DIGEST, Decoded
from extract.decoding.batched import decode_batch
from extract.forward import Extractor, build_extractor
from extract.images import DECODERS
from extract.lanes import STAGES, Done, Stream, lanes_on
from extract.loader import Loader, Sight
from extract.recipe import Preprocessing, view_of
from extract.record import Failure, Record, Status
from extract.runners import prepare
from extract.spec import available_cores
from extract.trace import Trace
from tests import instant
from tests.instant import Instant, Sums, digest_of, numbered
from tests.tiny import picture, put, tiny_spec


def computed(
    listed,
    *,
    given: Extractor | None = None,
    runner: Sums | None = None,
    workers: int = 2,
    n_lanes: int = 2,
    batch_size: int = 3,
    **more,
) -> Iterator[Done]:
    """The batches of a stream of its own."""
    given = given or instant.extractor()
    with Loader(Sight.of(given.recipe), workers=workers, batch_size=batch_size, **more) as opened:
        yield from Stream(given, runner or Sums(), opened, lanes=n_lanes).run(listed)


def joined(made: list[Done]) -> dict[str, np.ndarray]:
    return {layer: np.concatenate([done.rows[layer] for done in made]) for layer in made[0].rows}


def alone(record: Record) -> np.ndarray:
    """The row of an image that was computed by itself."""
    [done] = computed([record], workers=1, n_lanes=1)
    return done.rows["sum"][0]


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("n_lanes", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 50])
def test_batches_are_whole_and_in_order(decoder, workers, n_lanes, batch_size):
    listed = numbered(23)
    made = list(computed(listed, workers=workers, n_lanes=n_lanes, batch_size=batch_size))
    full, rest = divmod(23, batch_size)
    assert [len(done.items) for done in made] == [batch_size] * full + [rest] * bool(rest)
    assert [item.digest for done in made for item in done.items] == list(map(digest_of, listed))
    rows = joined(made)
    assert np.array_equal(rows["sum"], np.array([alone(record) for record in listed]))
    assert rows["corner:map"].shape == (23, 3, 2, 2)
    assert all(done.good.all() for done in made)


def test_no_records_make_no_batch(decoder):
    assert list(computed([])) == []


def test_order_holds_where_the_first_image_takes_longest_and_memory_is_bounded(decoder):
    later, taken = threading.Event(), []

    def listed() -> Iterator[Record]:
        for record in numbered(200):
            taken.append(record)
            yield record

    def answer(self: Instant) -> Decoded:
        if self.waiting[0].id == "0":
            deadline = time.monotonic() + 30
            while len(taken) < 6 * 5 and time.monotonic() < deadline:
                time.sleep(0.001)
            later.wait(0.05)
            assert len(taken) == 6 * 5, "three buffers: six batches under way"
        return Instant.answer(self)

    decoder.answer = answer
    decoder.full = property(lambda self: len(self.waiting) == 1)
    digests = []
    for done in computed(listed(), batch_size=5, buffers=3):
        digests += [item.digest for item in done.items]
        assert len(taken) <= len(digests) + 6 * 5
    assert digests == list(map(digest_of, numbered(200)))


def test_a_reader_that_does_not_read_on_stops_the_flow(decoder):
    taken = []

    def listed() -> Iterator[Record]:
        for record in numbered(200):
            taken.append(record)
            yield record

    made = computed(listed(), batch_size=5, buffers=3)
    next(made)
    time.sleep(0.05)
    assert len(taken) <= 5 + 6 * 5
    made.close()


def test_a_reader_that_stops_early_leaves_no_thread_and_ends_the_decoders(decoder):
    before, given = threading.active_count(), instant.extractor()
    with Loader(Sight.of(given.recipe), workers=3, batch_size=2) as opened:
        made = Stream(given, Sums(), opened, lanes=2).run(numbered(50))
        next(made)
        made.close()
        assert threading.active_count() <= before
        assert all("kill" in each.calls for each in opened._decoders)


def test_a_loader_serves_one_stream_after_the_other(decoder):
    given = instant.extractor()
    with Loader(Sight.of(given.recipe), workers=2, batch_size=4) as opened:
        stream = Stream(given, Sums(), opened, lanes=2)
        for n in (5, 0, 23):
            digests = [item.digest for done in stream.run(numbered(n)) for item in done.items]
            assert digests == list(map(digest_of, numbered(n)))
        assert all("kill" not in each.calls for each in opened._decoders)


def test_after_a_whole_run_no_thread_is_left(decoder):
    before = threading.active_count()
    list(computed(numbered(20)))
    assert threading.active_count() <= before


class Broken(Sums):
    def run(self, pixels: Tensor) -> dict[str, Tensor]:
        raise ZeroDivisionError("a bug of the network")


class Unfit(Sums):
    def lane(self):
        raise ZeroDivisionError("a bug of the network")


@pytest.mark.parametrize("runner", [Broken(), Unfit()], ids=["at work", "at the start"])
def test_an_exception_in_a_lane_surfaces(decoder, runner):
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError, match="of the network"):
        list(computed(numbered(50), runner=runner))
    assert threading.active_count() <= before


def test_an_exception_in_a_thread_that_loads_surfaces(decoder):
    def answer(self: Instant) -> Decoded:
        if self.waiting[0].id == "20":
            raise ZeroDivisionError("a bug of ours")
        return Instant.answer(self)

    decoder.answer = answer
    seen = []
    with pytest.raises(ZeroDivisionError, match="a bug of ours"):
        seen.extend(computed(numbered(50), batch_size=2))
    assert all(done.good.all() for done in seen)


def test_an_exception_while_records_are_listed_surfaces(decoder):
    def listed() -> Iterator[Record]:
        yield from numbered(7)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(computed(listed()))


def test_failures_are_in_their_places_and_have_no_rows(decoder):
    bad = Record("gone", "")
    listed = [bad, *numbered(4), bad, bad]
    made = list(computed(listed, given=instant.extractor(views=2)))
    failures = [item.failure and item.failure.reason for done in made for item in done.items]
    assert failures == ["gone", None, None, None, None, "gone", "gone"]
    good = np.concatenate([done.good for done in made])
    assert good.tolist() == [False, True, True, True, True, False, False]
    for layer, rows in joined(made).items():
        flat = rows.reshape(7, -1)
        assert np.isfinite(flat).all(1).tolist() == good.tolist(), layer
        assert np.isnan(flat[~good]).all()


@pytest.mark.parametrize("views", [1, 2])
def test_the_network_does_not_run_for_a_batch_of_failures(decoder, views):
    ran = []

    class Noted(Sums):
        def run(self, pixels: Tensor) -> dict[str, Tensor]:
            ran.append(len(pixels))
            return super().run(pixels)

    listed, given = [*[Record("gone", "")] * 3, *numbered(1)], instant.extractor(views=views)
    bad, good = computed(listed, given=given, runner=Noted())
    assert ran == [views]
    assert bad.good.tolist() == [False] * 3
    assert bad.rows.keys() == good.rows.keys()
    for layer, rows in bad.rows.items():
        assert rows.shape == (3, *good.rows[layer].shape[1:])
        assert (rows.dtype, np.isnan(rows).all()) == (good.rows[layer].dtype, True)


def test_what_the_stored_type_cannot_hold_is_a_failure_of_all_layers(decoder):
    class Loud(Sums):
        def run(self, pixels: Tensor) -> dict[str, Tensor]:
            rows = super().run(pixels)
            rows["sum"][1, 2] = 1e6
            return {tap: values.half() for tap, values in rows.items()}

    [done] = computed(numbered(3), given=instant.extractor(store="float16"), runner=Loud())
    assert [item.failure and item.failure.status for item in done.items] == [None, Status.NOT_FINITE, None]
    assert "float16" in done.items[1].failure.reason
    assert done.items[1].digest == digest_of(Record("1", ""))
    for rows in done.rows.values():
        assert rows.dtype == np.float16
        assert np.isnan(rows[1]).all()
        assert np.isfinite(rows[[0, 2]]).all()


def test_rows_have_memory_of_their_own(decoder):
    class Reused(Sums):
        def lane(self):
            memory: dict[str, Tensor] = {}

            def run(pixels: Tensor) -> dict[str, Tensor]:
                for tap, values in self.run(pixels).items():
                    memory.setdefault(tap, torch.empty(9, *values.shape[1:]))[: len(values)] = values
                return {tap: values[: len(pixels)] for tap, values in memory.items()}

            return run

    made = list(computed(numbered(9), runner=Reused(), n_lanes=1))
    assert np.array_equal(joined(made)["sum"], np.array([alone(record) for record in numbered(9)]))


def test_views_become_layers_of_their_own(decoder):
    listed = numbered(5)
    made = list(computed(listed, given=instant.extractor(views=4), batch_size=2))
    rows, single = joined(made), joined(list(computed(listed)))
    assert list(rows) == [view_of(tap, view) for view in range(4) for tap in ("sum", "corner:map")]
    assert np.array_equal(rows["sum"], single["sum"])
    assert np.array_equal(rows["corner:map"], single["corner:map"])
    assert np.array_equal(rows["sum@1"], single["sum"]), "the sum of a mirror image"
    assert not np.array_equal(rows["corner:map@1"], single["corner:map"])
    assert not np.array_equal(rows["sum@2"], single["sum"])


def test_a_view_does_not_depend_on_the_batch_nor_on_the_name(tmp_path):
    given = instant.extractor(views=4)
    one, other = (Record(name, str(put(tmp_path / name, 3))) for name in ("one.png", "other.png"))
    between = [Record(f"{i}.png", str(put(tmp_path / f"{i}.png", i + 10))) for i in range(3)]
    rows = joined(list(computed([one, *between, other], given=given, batch_size=2)))
    for layer in rows:
        assert np.array_equal(rows[layer][0], rows[layer][4])
        assert not np.array_equal(rows[layer][0], rows[layer][1])


def files(folder: Path, n: int) -> list[Record]:
    """PNG and JPEG files of several sizes, two of which are none."""
    listed = []
    for i in range(n):
        path = folder / f"{i}.{('png', 'jpg')[i % 2]}"
        picture(i, (40 + 7 * i, 90 - 3 * i)).save(path)
        listed.append(Record(path.name, str(path)))
    (folder / "text.png").write_text("no image")
    return [*listed[:2], Record("text", str(folder / "text.png")), *listed[2:], Record("gone", str(folder / "gone"))]


@pytest.mark.parametrize("room", [1 << 20, 9000, 1])
@pytest.mark.parametrize("views", [1, 4])
def test_what_the_device_resizes_gives_the_very_rows(tmp_path, monkeypatch, room, views):
    """`room` for all images to be resized on the device, for some of them, and for none."""
    monkeypatch.setattr(batches, "RAW_BYTES", room)
    listed, given = files(tmp_path, 8), instant.extractor(views=views)
    plain = list(computed(listed, given=given, batch_size=4))
    resized = list(computed(listed, given=given, batch_size=4, on_gpu=True))
    for layer, rows in joined(resized).items():
        assert np.array_equal(rows, joined(plain)[layer], equal_nan=True), layer
    outcomes = [[(item.digest, item.failure) for done in made for item in done.items] for made in (plain, resized)]
    assert outcomes[0] == outcomes[1]
    assert sum(failure is not None for _, failure in outcomes[0]) == 2


def by_gpu(**changes) -> Extractor:
    """An extractor whose device decodes."""
    given = instant.extractor()
    return SimpleNamespace(**{**vars(given), "recipe": replace(given.recipe, decoder=DECODERS["gpu"], **changes)})


def test_what_the_device_decodes_lies_among_the_others(tmp_path, monkeypatch):
    listed = []
    for i in range(6):
        path = tmp_path / f"{i}.{('jpg', 'png')[i % 2]}"
        picture(i, (100, 80)).save(path, **({"subsampling": 0, "quality": 95} if i % 2 == 0 else {}))
        listed.append(Record(path.name, str(path)))
    decoded = []

    def watched(given: list[Tensor], device: torch.device) -> list[Tensor | Failure]:
        decoded.extend(given)
        return decode_batch(given, device)

    monkeypatch.setattr(pixels, "decode_batch", watched)
    for more in ({}, {"on_gpu": True}):
        decoded.clear()
        made = list(computed(listed, given=by_gpu(), batch_size=6, workers=3, **more))
        assert {each.numpy().tobytes() for each in decoded} == {Path(r.path).read_bytes() for r in listed[::2]}
        got, plain = joined(made), joined(list(computed(listed, batch_size=6)))
        assert np.array_equal(got["sum"][1::2], plain["sum"][1::2])
        assert np.abs(got["corner:map"] - plain["corner:map"]).max() <= 2, "decoders may round otherwise"


def test_what_the_device_cannot_decode_is_a_failure_in_its_place(tmp_path, monkeypatch):
    picture(1, (100, 80)).save(tmp_path / "image.jpg")
    listed = [Record(str(i), str(tmp_path / "image.jpg")) for i in range(3)]
    damaged = Failure(Status.DAMAGED, "no end")
    strip = torch.zeros(200, 1, 3, dtype=torch.uint8)
    image = torch.from_numpy(np.array(picture(1, (100, 80))))
    monkeypatch.setattr(pixels, "decode_batch", lambda *_: [damaged, strip, image])
    given = by_gpu()
    given.recipe = replace(given.recipe, preprocessing=Preprocessing(4096, 32, "bilinear", (0.5,) * 3, (0.5,) * 3))
    [done] = computed(listed, given=given, workers=1)
    assert [item.failure and item.failure.status for item in done.items] == [Status.DAMAGED, Status.TOO_LARGE, None]
    assert [item.digest != NO_DIGEST for item in done.items] == [True] * 3
    assert np.isnan(done.rows["sum"]).all(1).tolist() == [True, True, False]


def test_seconds_are_shared_out_over_all_that_work_side_by_side(decoder):
    [done] = computed(numbered(8), workers=4, n_lanes=2, batch_size=8)
    assert set(done.seconds) == set(STAGES) - {"write"}
    assert done.seconds["read"] == 8 * 1.0 / 4
    assert done.seconds["decode"] >= 8 * 2.0 / 4
    assert done.seconds["forward"] > 0


def test_a_cpu_has_a_lane_for_each_core_that_is_ours():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert lanes_on(cpu) == available_cores()
    assert lanes_on(cpu, share=2) == max(1, available_cores() // 2)
    assert lanes_on(cpu, share=10**6) == 1
    assert lanes_on(gpu) == lanes_on(gpu, share=8) == 2


def test_a_trace_is_told_of_every_batch(decoder):
    trace, given = Trace(), instant.extractor()
    with Loader(Sight.of(given.recipe), workers=2, batch_size=4, trace=trace) as opened:
        list(Stream(given, Sums(), opened, lanes=2, trace=trace).run(numbered(10)))
    spans = [event["args"] for event in trace._events if event["name"] == "batch"]
    assert sorted((span["number"], span["images"]) for span in spans) == [(0, 4), (1, 4), (2, 2)]


@pytest.fixture(scope="module")
def network() -> Extractor:
    return build_extractor(tiny_spec("", Path("cache"), taps=("layer1", "penultimate", "layer2:map")))


@pytest.mark.parametrize("n_lanes", [1, 3])
def test_rows_are_those_of_the_plain_network(tmp_path, network, n_lanes):
    listed = [Record(f"{i}", str(put(tmp_path / f"{i}.png", i))) for i in range(10)]
    runner = prepare(network, batch_size=4)
    with Loader(Sight.of(network.recipe), workers=2, batch_size=4, buffers=4) as opened:
        rows = joined(list(Stream(network, runner, opened, lanes=n_lanes).run(listed)))
        with Crew() as crew:
            pixels = torch.cat([batch.buffer.pixels[: len(batch)] for batch in in_turn(opened.run(listed, crew))])
    for tap, plain in network.exact(pixels).items():
        off = np.linalg.norm((rows[tap] - plain).reshape(10, -1), axis=1)
        assert (off <= 1e-5 * np.linalg.norm(plain.reshape(10, -1), axis=1)).all(), tap


def in_turn(ready) -> list:
    return sorted(ready, key=lambda batch: batch.number)


def test_threads_of_the_operators_keep_to_themselves(decoder):
    before, seen = torch.get_num_threads(), []

    class Asking(Sums):
        def run(self, pixels: Tensor) -> dict[str, Tensor]:
            seen.append(torch.get_num_threads())
            return super().run(pixels)

    try:
        list(computed(numbered(5), runner=Asking()))
        assert set(seen) == {1}
    finally:
        torch.set_num_threads(before)


def test_a_white_image_is_white_wherever_it_stands(tmp_path):
    """Buffers are used again: nothing of the image before may be left, nor of a larger batch."""
    Image.new("RGB", (50, 40), "white").save(tmp_path / "white.png")
    white = Record("white", str(tmp_path / "white.png"))
    listed = [Record(f"{i}", str(put(tmp_path / f"{i}.png", i))) for i in range(7)]
    made = list(computed([*listed, white], batch_size=3, buffers=1, n_lanes=1))
    assert joined(made)["sum"][-1].tolist() == [255.0] * 3
