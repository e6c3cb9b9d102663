import hashlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from extract import batches, images, loader
from extract.batches import Batch
from extract.channel import Crew
from extract.decoding import NO_DIGEST, Decoded, pool
from extract.errors import DecoderError
from extract.loader import Loaded, Loader, Sight
from extract.recipe import Preprocessing
from extract.record import Failure, Record, Status
from extract.resample import render
from extract.trace import Trace
from extract.views import looks
from tests import hostile
from tests.instant import Instant
from tests.tiny import picture, put

PRESET = Preprocessing(34, 32, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SIGHT = Sight(PRESET)


@dataclass
class Seen:
    """A batch as a lane finds it, with pixels of its own."""

    number: int
    items: list[Loaded]
    pixels: Tensor
    raws: list[tuple[int, Tensor]]


def records(tmp_path, n: int) -> list[Record]:
    return [Record(f"{i}.png", str(put(tmp_path / f"{i}.png", i))) for i in range(n)]


def batches_of(given: Loader, listed: Iterable[Record]) -> Iterator[Seen]:
    """Take batches as they get ready, and give each back."""
    with Crew() as crew:
        for batch in given.run(listed, crew):
            raws = [(raw.place, batch.buffer.raw[raw.at].clone()) for raw in batch.raws if raw.jpeg is None]
            raws += [(raw.place, raw.jpeg) for raw in batch.raws if raw.jpeg is not None]
            yield Seen(batch.number, batch.loaded, batch.buffer.pixels.clone(), raws)
            batch.release()
            batch.make_way()
        crew.check()


def load(
    listed: Iterable[Record], *, sight: Sight = SIGHT, workers: int = 2, batch_size: int = 3, **more
) -> list[Seen]:
    with Loader(sight, workers=workers, batch_size=batch_size, **more) as given:
        return sorted(batches_of(given, listed), key=lambda batch: batch.number)


def digest_of(record: Record) -> bytes:
    return hashlib.sha256(Path(record.path).read_bytes()).digest()


def rendered(record: Record, sight: Sight = SIGHT) -> Tensor:
    """What the pixels of one image should be, view by view: (V, 3, S, S)."""
    image = images.decode(Path(record.path).read_bytes(), short_px=sight.short_px)
    preset, digest = sight.preset, digest_of(record)
    seed, flips = sight.view_seed, sight.view_flips
    chosen = looks(*image.shape[:2], preset, digest=digest, views=sight.views, seed=seed, flips=flips)
    out = torch.zeros(sight.views, 3, preset.crop_size, preset.crop_size, dtype=torch.uint8)
    for i, look in enumerate(chosen):
        render(image, look, preset.interpolation, out[i])
    return out


class Stub(Instant):
    """Stands for a decoder: answers at once, with a failure that says which record it was."""

    def answer(self) -> Decoded:
        return Decoded(self.waiting.popleft().id.encode(), Failure(Status.EMPTY, "a stub"))


@pytest.fixture
def stub(monkeypatch) -> type[Stub]:
    """A class of decoders to be changed."""

    class Changed(Stub):
        pass

    monkeypatch.setattr(loader, "Decoder", Changed)
    return Changed


def numbered(n: int) -> list[Record]:
    return [Record(str(i), "") for i in range(n)]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 16])
def test_batches_are_whole_and_the_last_is_what_is_left(tmp_path, workers, batch_size):
    listed = records(tmp_path, 7)
    made = load(listed, batch_size=batch_size, workers=workers)
    full, rest = divmod(7, batch_size)
    assert [len(batch.items) for batch in made] == [batch_size] * full + [rest] * bool(rest)
    assert [batch.number for batch in made] == list(range(len(made)))
    assert [item.digest for batch in made for item in batch.items] == list(map(digest_of, listed))
    assert all(item.failure is None for batch in made for item in batch.items)
    pixels = torch.cat([batch.pixels[: len(batch.items)] for batch in made])
    assert pixels.equal(torch.cat([rendered(record) for record in listed]))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
def test_views_of_an_image_are_neighbours(tmp_path, interpolation):
    preset = Preprocessing(34, 32, interpolation, PRESET.mean, PRESET.std)
    sight = Sight(preset, views=4, view_seed=7)
    listed = records(tmp_path, 3)
    [batch] = load(listed, sight=sight)
    assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
    assert batch.pixels.equal(torch.cat([rendered(record, sight) for record in listed]))
    assert batch.pixels[1].equal(batch.pixels[0].flip(2))
    assert not batch.pixels[2].equal(batch.pixels[0])
    [plain] = load(listed, sight=replace(sight, view_flips=False))
    assert plain.pixels.equal(torch.cat([rendered(record, replace(sight, view_flips=False)) for record in listed]))
    assert not plain.pixels[1].equal(batch.pixels[1])


def test_the_same_content_under_two_names_has_the_same_views(tmp_path):
    [one, other] = [Record(name, str(put(tmp_path / name, 1))) for name in ("one.png", "other.png")]
    [batch] = load([one, other], sight=Sight(PRESET, views=5), batch_size=2)
    assert batch.pixels[:5].equal(batch.pixels[5:])


def test_an_image_may_be_resized_by_any_thread_into_any_place(tmp_path):
    listed = records(tmp_path, 5) * 8
    made = load(listed, batch_size=9, workers=4, buffers=2)
    pixels = torch.cat([batch.pixels[: len(batch.items)] for batch in made])
    assert pixels.equal(torch.cat([rendered(record) for record in listed]))


def test_jpegs_are_scaled_where_the_recipe_says_so(tmp_path):
    picture(1, (400, 300)).save(tmp_path / "photo.jpg")
    photo = Record("photo", str(tmp_path / "photo.jpg"))
    plain, scaled = Sight(PRESET), Sight(PRESET, decoder="scaled")
    assert (plain.short_px, scaled.short_px) == (None, 2 * 34)
    [one], [other] = load([photo], sight=plain), load([photo], sight=scaled)
    assert one.pixels[:1].equal(rendered(photo, plain))
    assert other.pixels[:1].equal(rendered(photo, scaled))
    assert not one.pixels.equal(other.pixels)


def test_a_slow_first_image_holds_up_no_other_until_too_many_are_behind_it(stub):
    later, taken = threading.Event(), []

    def answer(self: Stub) -> Decoded:
        record = self.waiting.popleft()
        if record.id == "0":
            assert later.wait(30)
        return Decoded(record.id.encode(), Failure(Status.EMPTY, ""))

    stub.answer = answer
    stub.full = property(lambda self: len(self.waiting) == 1)
    with Loader(SIGHT, workers=2, batch_size=5, buffers=2) as given, Crew() as crew:
        ready = given.run(counted(taken, 200), crew)

        def take() -> Batch:
            batch = ready.get()
            batch.release()
            return batch

        *_, last = early = [take(), take(), take()]
        assert [batch.number for batch in early] == [1, 2, 3]
        time.sleep(0.02)
        assert len(taken) == 2 * 2 * 5, "four batches are under way: the slow one, and three behind it"
        last.make_way()
        last.make_way()
        assert [take().number, take().number] == [4, 5]
        assert len(taken) == 6 * 5
        later.set()
        assert take().number == 0


def counted(taken: list[int], n: int) -> Iterator[Record]:
    for i in range(n):
        taken.append(i)
        yield Record(str(i), "")


@pytest.mark.parametrize("buffers", [1, 2, 3])
def test_never_more_batches_are_filled_than_there_are_buffers(stub, buffers):
    taken, given_back = [], 0
    with Loader(SIGHT, workers=8, batch_size=5, buffers=buffers) as given, Crew() as crew:
        for batch in given.run(counted(taken, 100), crew):
            assert len(taken) <= given_back + buffers * 5
            batch.release()
            given_back += 5
            batch.make_way()
        crew.check()
    assert len(taken) == given_back == 100


def test_no_more_threads_than_workers_load(stub):
    threads, all_there = set(), threading.Barrier(3)

    def answer(self: Stub) -> Decoded:
        if (name := threading.current_thread().name) not in threads:
            threads.add(name)
            all_there.wait(30)
        return Stub.answer(self)

    stub.answer = answer
    assert sum(len(batch.items) for batch in load(numbered(50), workers=3, batch_size=8)) == 50
    assert threads == {"load 0", "load 1", "load 2"}


def test_a_reader_that_stops_early_leaves_no_thread_and_no_process(tmp_path, started):
    before = threading.active_count()
    with Loader(SIGHT, workers=2, batch_size=2) as given:
        made = batches_of(given, records(tmp_path, 20))
        next(made)
        made.close()
        assert threading.active_count() <= before
    assert all(process.poll() is not None for process in started)


def test_no_records_make_no_batch():
    assert load([]) == []


def test_what_cannot_be_read_is_a_failure_in_its_place(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    [good] = records(tmp_path, 1)
    names = ["gone.png", "pipe.png", "text.png", "empty.png"]
    listed = [good, *(Record(name, str(tmp_path / name)) for name in names), good]
    [batch] = load(listed, batch_size=10)
    assert batch.pixels[0].equal(batch.pixels[5])
    assert [item.failure and item.failure.status for item in batch.items] == [
        None,
        Status.MISSING,
        Status.MISSING,
        Status.NOT_AN_IMAGE,
        Status.EMPTY,
        None,
    ]
    assert [item.digest == NO_DIGEST for item in batch.items] == [False, True, True, False, True, False]


def test_a_strip_that_resizing_would_blow_up_is_a_failure_with_its_digest(tmp_path):
    Image.new("RGB", (1, 200)).save(tmp_path / "strip.png")
    strip = Record("strip", str(tmp_path / "strip.png"))
    [good] = records(tmp_path, 1)
    for on_gpu in (False, True):
        sight = Sight(Preprocessing(4096, 8, "bilinear", PRESET.mean, PRESET.std))
        [batch] = load([strip, good], sight=sight, on_gpu=on_gpu)
        assert batch.items[0].failure.status == Status.TOO_LARGE
        assert batch.items[0].digest == digest_of(strip)
        assert batch.items[1].failure is None


def test_an_exception_in_a_thread_surfaces_and_its_decoder_is_stopped(stub):
    def answer(self: Stub) -> Decoded:
        if self.waiting[0].id == "4":
            raise ZeroDivisionError("a bug of ours")
        return Stub.answer(self)

    stub.answer = answer
    before = threading.active_count()
    with Loader(SIGHT, workers=2, batch_size=2) as given:
        with pytest.raises(ZeroDivisionError, match="a bug of ours"):
            list(batches_of(given, numbered(9)))
        assert any("stop" in decoder.calls for decoder in given._decoders)
        assert threading.active_count() <= before


def test_an_exception_while_records_are_listed_surfaces(stub):
    def listed() -> Iterator[Record]:
        yield from numbered(3)
        raise KeyError("the list breaks off")

    with Loader(SIGHT, workers=2, batch_size=2) as given, pytest.raises(KeyError, match="breaks off"):
        list(batches_of(given, listed()))


@pytest.fixture
def started(monkeypatch) -> list[subprocess.Popen[bytes]]:
    """The processes that were started to decode."""
    processes = []
    start = pool._started
    monkeypatch.setattr(pool, "_started", lambda orders: processes.append(start(orders)) or processes[-1])
    return processes


def test_processes_live_as_long_as_the_loader(tmp_path, started):
    listed = records(tmp_path, 9)
    with Loader(SIGHT, workers=2, batch_size=4) as given:
        for _ in range(3):
            assert sum(len(batch.items) for batch in batches_of(given, listed)) == 9
        assert 1 <= len(started) <= 2
        assert all(process.poll() is None for process in started)
    assert all(process.poll() is not None for process in started)


def test_all_processes_can_be_started_before_the_first_image(tmp_path, started):
    with Loader(SIGHT, workers=3, batch_size=4) as given:
        given.start()
        assert len(started) == 3
        assert len(list(batches_of(given, records(tmp_path, 9)))) == 3
        assert len(started) == 3


def test_no_more_processes_are_started_than_there_are_images(tmp_path, started):
    with Loader(SIGHT, workers=50, batch_size=4) as given:
        list(batches_of(given, records(tmp_path, 2)))
    assert 1 <= len(started) <= 2


def test_a_machine_that_starts_no_process_says_so_at_the_start(monkeypatch):
    monkeypatch.setattr(pool, "PROGRAM", "raise SystemExit(4)")
    with Loader(SIGHT, workers=3, batch_size=4) as given, pytest.raises(DecoderError, match="exit code 4"):
        given.start()


def test_a_machine_that_starts_no_process_says_so_in_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "PROGRAM", "raise SystemExit(4)")
    with Loader(SIGHT, workers=3, batch_size=4) as given, pytest.raises(DecoderError, match="exit code 4"):
        list(batches_of(given, records(tmp_path, 9)))


def test_an_interrupt_while_a_process_does_not_get_ready_is_heard(monkeypatch, started):
    monkeypatch.setattr(pool, "PROGRAM", "import time\ntime.sleep(600)")
    main = threading.get_ident()

    def press() -> None:
        while len(started) < 2:
            time.sleep(0.001)
        signal.pthread_kill(main, signal.SIGINT)

    presses = threading.Thread(target=press)
    with Loader(SIGHT, workers=2, batch_size=4) as given:
        presses.start()
        with pytest.raises(KeyboardInterrupt):
            given.start()
    presses.join()
    assert all(process.poll() is not None for process in started)


def test_killing_frees_a_loader_whose_decoders_hang(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "PROGRAM", hostile.PROGRAM.replace("ITIMER_REAL, 0.1", "ITIMER_REAL, 60"))
    listed = records(tmp_path, 8)
    for record in listed[2:]:
        with Path(record.path).open("ab") as file:
            file.write(b"WAIT")
    with Loader(SIGHT, workers=2, batch_size=2) as given:
        with Crew() as crew:
            ready = given.run(listed, crew)
            assert ready.get().number == 0
            given.kill()
        with pytest.raises(DecoderError, match="has been ended"):
            list(batches_of(given, listed))


def test_a_loader_makes_room_for_the_files_of_its_decoders(monkeypatch):
    asked = []
    monkeypatch.setattr(loader, "allow_decoders", asked.append)
    with Loader(SIGHT, workers=5, batch_size=1):
        assert asked == [5]


def test_what_a_device_is_to_resize_is_left_to_it_while_there_is_room(tmp_path, monkeypatch):
    listed = records(tmp_path, 4)
    n_bytes = 40 * 36 * 3
    monkeypatch.setattr(batches, "RAW_BYTES", n_bytes * 3 // 4 + 1)
    [batch] = load(listed, batch_size=4, workers=1, on_gpu=True)
    assert sorted(place for place, _ in batch.raws) == [0, 1, 2]
    for place, raw in batch.raws:
        assert np.array_equal(raw.numpy(), np.asarray(picture(place)).reshape(-1))
    assert batch.pixels[3].equal(rendered(listed[3])[0]), "there was no room for the last one"


def test_a_batch_of_very_many_images_takes_no_more_memory_than_it_may(monkeypatch):
    monkeypatch.setattr(batches, "MAX_RAW_BYTES", 5000)
    sizes = {n: len(batches.Buffer(n, 1, 8, raw=True, pinned=False).raw) for n in (1, 256)}
    assert sizes == {1: 5000, 256: 5000}
    assert len(batches.Buffer(256, 1, 8, raw=False, pinned=False).raw) == 0


@pytest.mark.parametrize(("interpolation", "left"), [("bicubic", 3), ("lanczos", 0)])
def test_what_no_device_can_resize_is_not_left_to_it(tmp_path, interpolation, left):
    preset = Preprocessing(34, 32, interpolation, PRESET.mean, PRESET.std)
    [batch] = load(records(tmp_path, 3), sight=Sight(preset), on_gpu=True)
    assert len(batch.raws) == left


def test_a_jpeg_that_its_device_decodes_goes_there_as_it_is(tmp_path):
    picture(1, (90, 70)).save(tmp_path / "plain.jpg")
    picture(1, (90, 70)).save(tmp_path / "other.jpg", progressive=True)
    listed = [Record(name, str(tmp_path / name)) for name in ("plain.jpg", "other.jpg")]
    [batch] = load(listed, sight=Sight(PRESET, decoder="gpu"), on_gpu=True)
    left = dict(batch.raws)
    assert left[0].numpy().tobytes() == Path(listed[0].path).read_bytes()
    assert len(left[1]) == 90 * 70 * 3
    assert [item.digest for item in batch.items] == list(map(digest_of, listed))


def test_seconds_are_told_of_every_image(tmp_path):
    [batch] = load([*records(tmp_path, 2), Record("gone", str(tmp_path / "gone"))])
    *good, gone = batch.items
    assert all(item.read_s > 0 and item.decode_s > 0 for item in good)
    assert gone.read_s > 0


def test_a_trace_is_told_of_every_image(tmp_path):
    trace = Trace()
    load([*records(tmp_path, 3), Record("gone", str(tmp_path / "gone"))], trace=trace)
    said = {event["args"]["id"]: event["args"]["outcome"] for event in trace._events if event["name"] == "image"}
    assert said == {"0.png": "ok", "1.png": "ok", "2.png": "ok", "gone": "No such file or directory"}
