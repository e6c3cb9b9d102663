import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from torch import Tensor

from extract.channel import Crew
from extract.decoding import Decoded, pool
from extract.errors import DecoderError, OptionError, RunnerError
from extract.images import DECODERS
from extract.loader import Drawn, Loader, Sight
from extract.pixels import Bringer, Pixels, PixelStream
from extract.record import Record, Status
from extract.resample import render
from extract.runners.chunks import out_of_memory
from extract.views import looks, training_look
from tests.instant import PRESET, Instant, digest_of, extractor, numbered
from tests.tiny import picture, put

RECIPE = extractor().recipe
AUGMENT = True, True, (0.5, 1.0)


@pytest.fixture
def started(monkeypatch) -> list[subprocess.Popen[bytes]]:
    """The processes that were started to decode."""
    processes = []
    start = pool._started
    monkeypatch.setattr(pool, "_started", lambda orders: processes.append(start(orders)) or processes[-1])
    return processes


def stream(batch_size: int = 3, workers: int = 2, **changes) -> PixelStream:
    return PixelStream(replace(RECIPE, **changes), batch_size=batch_size, workers=workers)


def drawn(record: Record, draw: int = 0, seed: int = 0, augment=AUGMENT) -> Drawn:
    return Drawn(record.id, record.path, seed=seed, draw=draw, augment=augment)


def plain(record: Record) -> Tensor:
    """What the pixels of a record of an `Instant` decoder should be: (3, S, S)."""
    image, digest = np.asarray(picture(int(record.id))), digest_of(record)
    high, wide, _ = image.shape
    if isinstance(record, Drawn):
        told = {"seed": record.seed, "draw": record.draw, "augment": record.augment}
        look = training_look(high, wide, PRESET, digest=digest, **told)
    else:
        [look] = looks(high, wide, PRESET, digest=digest, views=1, seed=0)
    out = torch.zeros(3, 32, 32, dtype=torch.uint8)
    render(image, look, PRESET.interpolation, out)
    return out


def joined(made: list[Pixels]) -> Tensor:
    return torch.cat([each.pixels for each in made])


def endless(n: int) -> Iterator[Record]:
    draw = 0
    while True:
        yield from (drawn(record, draw) for record in numbered(n))
        draw += 1


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 30])
def test_centre_views_and_looks_that_are_drawn_come_in_order(decoder, workers, batch_size):
    listed = [record if i % 3 else drawn(record, i) for i, record in enumerate(numbered(23))]
    with stream(batch_size, workers) as opened:
        made = list(opened.batches(listed))
    full, rest = divmod(23, batch_size)
    assert [len(each.items) for each in made] == [batch_size] * full + [rest] * bool(rest)
    assert [item.digest for each in made for item in each.items] == list(map(digest_of, listed))
    assert joined(made).equal(torch.stack([plain(record) for record in listed]))
    assert all(each.pixels.is_contiguous(memory_format=torch.channels_last) for each in made if len(each.items) > 1)


def test_the_centre_view_has_the_pixels_that_the_features_are_of(tmp_path):
    listed = []
    for i in range(5):
        path = tmp_path / f"{i}.{('png', 'jpg')[i % 2]}"
        picture(i, (50 + 9 * i, 90 - 3 * i)).save(path)
        listed.append(Record(path.name, str(path)))
    with Loader(Sight.of(RECIPE), workers=1, batch_size=5) as given, Crew() as crew:
        [batch] = given.run(listed, crew)
        expected = batch.buffer.pixels.clone()
    with stream(5, views=4, view_seed=1) as opened:
        [made] = opened.batches(listed)
    assert made.pixels.equal(expected)


def test_what_is_drawn_depends_on_content_seed_and_number_alone(decoder):
    one, other = numbered(2)
    listed = [drawn(one, 7, 1), drawn(other, 7, 1), drawn(one, 8, 1), drawn(one, 7, 2), drawn(one, 7, 1)]
    with stream(2) as opened:
        first, second, third, fourth, again = joined(list(opened.batches(listed)))
    assert first.equal(again)
    assert len({each.numpy().tobytes() for each in (first, second, third, fourth)}) == 4


def test_without_a_crop_a_coin_mirrors_the_centre_view(decoder):
    [record] = numbered(1)
    looked = [drawn(record, draw, augment=(False, True, (0.5, 1.0))) for draw in range(20)]
    with stream(4) as opened:
        pixels = joined(list(opened.batches(looked)))
        [centre] = joined(list(opened.batches([record])))
    mirrored = [each.equal(centre.flip(2)) for each in pixels]
    assert 0 < sum(mirrored) < 20
    assert all(each.equal(centre) for each, flip in zip(pixels, mirrored, strict=True) if not flip)


def test_batches_are_in_memory_of_their_own(decoder):
    with stream(2) as opened:
        made = list(opened.batches(numbered(20)))
    assert len({each.pixels.data_ptr() for each in made}) == 10
    assert joined(made).equal(torch.stack([plain(record) for record in numbered(20)]))


def test_a_run_may_be_left_and_the_next_one_has_the_same_processes(tmp_path, started):
    listed = [Record(f"{i}.png", str(put(tmp_path / f"{i}.png", i))) for i in range(6)]
    expected = None
    with stream(4) as opened:
        for _ in range(3):
            run = opened.batches(drawn(record, draw) for draw in range(1000) for record in listed)
            made = joined(list(islice(run, 3)))
            expected = made if expected is None else expected
            assert made.equal(expected)
        assert len(joined(list(opened.batches(listed)))) == 6
        assert len(started) == 2
        assert all(process.poll() is None for process in started)
    assert all(process.poll() is not None for process in started)


def test_a_run_ends_where_the_next_begins(decoder):
    with stream(2) as opened:
        early = opened.batches(endless(5))
        assert next(early).pixels[0].equal(plain(drawn(numbered(5)[0])))
        threads = threading.active_count()
        later = opened.batches(endless(5))
        assert next(later).pixels[1].equal(plain(drawn(numbered(5)[1])))
        assert threading.active_count() <= threads
        with pytest.raises(StopIteration):
            next(early)


def test_only_a_few_batches_are_read_ahead(decoder):
    taken = []

    def listed() -> Iterator[Record]:
        for record in endless(7):
            taken.append(record)
            yield record

    with stream(2) as opened:
        run = opened.batches(listed())
        for step in range(30):
            next(run)
            assert len(taken) <= 2 * (step + 1 + 6)


def test_an_image_that_is_gone_is_a_failure_in_its_place(decoder):
    good, other = numbered(2)
    with stream() as opened:
        [made] = opened.batches([drawn(good), Record("gone", ""), drawn(other)])
    assert [item.failure and item.failure.status for item in made.items] == [None, Status.MISSING, None]
    assert made.pixels[2].equal(plain(drawn(other)))


def test_what_a_thread_raises_comes_out(decoder):
    def answer(self: Instant) -> Decoded:
        raise DecoderError("no process")

    decoder.answer = answer
    with stream() as opened, pytest.raises(DecoderError, match="no process"):
        list(opened.batches(numbered(9)))


def test_where_the_memory_does_not_suffice_it_says_so(decoder, monkeypatch):
    def bring(self: Bringer, batch: object) -> None:
        raise MemoryError

    assert out_of_memory(MemoryError())
    monkeypatch.setattr(Bringer, "bring", bring)
    with stream() as opened, pytest.raises(RunnerError, match="does not suffice"):
        list(opened.batches(numbered(9)))


def test_an_interrupt_ends_the_processes(decoder):
    def listed() -> Iterator[Record]:
        yield from numbered(4)
        raise KeyboardInterrupt

    with stream(2) as opened:
        with pytest.raises(KeyboardInterrupt):
            list(opened.batches(listed()))
        assert all("kill" in each.calls for each in opened._loader._decoders)


def test_images_that_a_gpu_decoded_need_one(decoder):
    with pytest.raises(OptionError, match="decoded by a GPU"):
        stream(decoder=DECODERS["gpu"])


def test_threads_that_start_later_have_all_cores(decoder):
    threads = torch.get_num_threads()
    found = []
    with stream() as opened:
        list(opened.batches(numbered(9)))
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert [torch.get_num_threads(), *found] == [threads] * 2


def _writable(decoded: Decoded) -> Decoded:
    """As pixels are that come from a process."""
    return replace(decoded, outcome=decoded.outcome.copy())


@pytest.mark.parametrize("room", [1 << 20, 5000, 1])
def test_looks_are_drawn_on_the_device_as_on_the_host(decoder, monkeypatch, room):
    monkeypatch.setattr("extract.batches.RAW_BYTES", room)
    decoder.answer = lambda self: _writable(Instant.answer(self))
    listed = [record if i % 3 else drawn(record, i) for i, record in enumerate(numbered(8))]
    with Loader(Sight.of(RECIPE), workers=2, batch_size=8, on_gpu=True) as given, Crew() as crew:
        [batch] = given.run(listed, crew)
        pixels, _ = Bringer(torch.device("cpu"), given.sight, 8).bring(batch)
    assert pixels.equal(torch.stack([plain(record) for record in listed]))


def test_nothing_to_resize_is_no_work_for_the_device(tmp_path):
    """As where all images of a batch are bad, and pixels come from the host alone."""
    gone = [Record("gone", str(tmp_path / "gone"))] * 2
    with Loader(Sight.of(RECIPE), workers=1, batch_size=2, on_gpu=True) as opened, Crew() as crew:
        bringer = Bringer(torch.device("cpu"), opened.sight, 2)
        bringer.stream = "what follows is the same on a GPU"
        [batch] = opened.run(gone, crew)
        pixels, items = bringer.bring(batch)
    assert pixels.shape == (2, 3, 32, 32)
    assert [item.failure.status for item in items] == [Status.MISSING] * 2
