import threading
from collections import Counter
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from classify.finetune.examples import AHEAD, ImageExamples, MapExamples, draws, records_of
from classify.finetune.plan import Augment
from extract import loader
from extract.errors import FitError, StoreError
from extract.loader import Drawn
from extract.pixels import PixelStream
from tests.classify.finetune.tiny_maps import LAYER, map_set, maps_of
from tests.instant import Instant, digest_of, extractor, numbered

BOTH, NONE = Augment(crop=True, flip=True), Augment(crop=False, flip=False)
CODES = np.arange(100, dtype=np.int64) % 3


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**31), st.integers(0, 50))
def test_every_epoch_has_each_once_and_no_batch_is_short(n, batch_size, seed, start):
    steps = list(islice(draws(n, batch_size=batch_size, seed=seed), start + 3))
    assert all(len(places) == len(epochs) == batch_size for places, epochs in steps)
    places, epochs = (np.concatenate(each) for each in zip(*steps, strict=True))
    assert epochs.tolist() == [i // n for i in range(len(epochs))]
    for epoch in range(len(epochs) // n):
        assert sorted(places[epochs == epoch]) == list(range(n))
    resumed = list(islice(draws(n, batch_size=batch_size, seed=seed, start=start), 3))
    for got, expected in zip(resumed, steps[start:], strict=True):
        assert np.array_equal(got[0], expected[0])
        assert np.array_equal(got[1], expected[1])


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {
        tuple(places.tolist()) for seed in range(3) for places, _ in islice(draws(40, batch_size=40, seed=seed), 3)
    }
    assert len(orders) == 9


def images(n: int = 10, rows: list[int] | None = None, **changes) -> ImageExamples:
    """Examples of the pictures that an `Instant` decoder makes."""
    records = numbered(n)
    sha256 = np.array([np.frombuffer(digest_of(record), np.uint8) for record in records])
    features = SimpleNamespace(
        ids=[record.id for record in records], sha256=sha256, source="photos", recipe=extractor().recipe
    )
    for name, value in changes.items():
        setattr(features, name, value)
    rows = list(range(n)) if rows is None else rows
    return ImageExamples(features, records[::-1], np.array(rows), CODES[: len(rows)], workers=2)


def drawn(examples, n: int, *, at=None, batch_size=4, seed=1, start=0, augment=BOTH) -> list:
    at = np.arange(10) if at is None else at
    batches = examples.drawn(at, batch_size=batch_size, seed=seed, start=start, augment=augment)
    made = list(islice(batches, n))
    batches.close()
    return made


def assert_same(got: list, expected: list) -> None:
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one.x.equal(other.x)
        assert one.y.equal(other.y)
        assert np.array_equal(one.at, other.at)


@pytest.mark.usefixtures("no_thread_left")
def test_images_come_in_the_order_that_is_drawn_with_their_codes(decoder):
    with images() as examples:
        made = drawn(examples, 6)
    assert not examples.cached
    for batch, (places, _) in zip(made, draws(10, batch_size=4, seed=1), strict=False):
        assert np.array_equal(batch.at, places)
        assert batch.y.tolist() == CODES[places].tolist()
        assert batch.y.dtype == torch.int64
        assert batch.x.shape == (4, 3, 32, 32)
        assert batch.x.dtype == torch.uint8


def test_images_of_a_part_are_those_of_their_rows(decoder):
    """Row 7 of the features is example 0 of the training part, and so on; of these some are trained on."""
    with images(rows=[7, 2, 9, 4]) as examples, PixelStream(extractor().recipe, batch_size=2, workers=1) as plain:
        [batch] = examples.plain(np.array([2, 1]), batch_size=5)
        [expected] = plain.batches([numbered(10)[9], numbered(10)[2]])
    assert batch.x.equal(expected.pixels)
    assert batch.at.tolist() == [2, 1]
    assert batch.y.tolist() == [2, 1]


def test_looks_are_drawn_by_seed_and_epoch(decoder):
    with images() as examples, PixelStream(extractor().recipe, batch_size=4, workers=1) as plain:
        made = drawn(examples, 5, seed=3)
        for batch, (places, epochs) in zip(made, draws(10, batch_size=4, seed=3), strict=False):
            asked = [
                Drawn(str(place), "", seed=3, draw=epoch, augment=(True, True, (0.5, 1.0)))
                for place, epoch in zip(places.tolist(), epochs.tolist(), strict=True)
            ]
            [expected] = plain.batches(asked)
            assert batch.x.equal(expected.pixels)


def test_nothing_is_drawn_where_nothing_is_augmented(decoder):
    with images() as examples:
        for batch in drawn(examples, 3, augment=NONE):
            [expected] = examples.plain(batch.at, batch_size=4)
            assert batch.x.equal(expected.x)


@pytest.mark.parametrize("kind", ["images", "maps"])
def test_from_a_step_on_all_is_as_if_it_had_begun_at_0(kind, decoder, tmp_path):
    examples = images() if kind == "images" else maps(tmp_path, views=4)
    whole = drawn(examples, 9)
    assert_same(drawn(examples, 9), whole)
    for start in (1, 4, 8):
        assert_same(drawn(examples, 9 - start, start=start), whole[start:])
    assert not whole[0].x.equal(drawn(examples, 1, seed=2)[0].x)
    if kind == "images":
        examples.close()


@pytest.mark.usefixtures("no_thread_left")
def test_images_are_looked_at_plainly_while_others_are_drawn(decoder):
    with images() as examples:
        expected = drawn(examples, 6)
        batches = examples.drawn(np.arange(10), batch_size=4, seed=1, start=0, augment=BOTH)
        made = []
        for _ in range(6):
            made.append(next(batches))
            assert sum(len(batch.at) for batch in examples.plain(np.arange(10), batch_size=4)) == 10
        assert_same(made, expected)


def test_batches_of_another_size_are_no_trouble(decoder):
    with images() as examples:
        for size in (3, 10, 64):
            [*batches] = examples.plain(np.arange(10), batch_size=size)
            assert np.concatenate([batch.at for batch in batches]).tolist() == list(range(10))
            assert all(len(batch.x) == len(batch.at) == len(batch.y) for batch in batches)


def test_an_image_that_is_not_listed_is_an_error_at_once(decoder):
    with pytest.raises(FitError, match="2 of 3 images are not there any more, as 'gone'") as error:
        images(3, ids=["0", "gone", "away"])
    assert error.value.where == "photos"
    assert "--data DATA" in error.value.remedy


def test_an_image_that_cannot_be_read_is_an_error_when_it_is_its_turn(decoder):
    def answer(self: Instant):
        record = self.waiting[0]
        if record.id == "3":
            self.waiting[0] = loader.Record("no number", "")
        return Instant.answer(self)

    decoder.answer = answer
    with images() as examples:
        with pytest.raises(FitError, match="cannot be read") as error:
            list(examples.plain(np.arange(10), batch_size=2))
        assert error.value.where == "3"
        with pytest.raises(FitError, match="cannot be read"):
            drawn(examples, 3)
        assert len(list(examples.plain(np.arange(3), batch_size=2))) == 2


def test_an_image_of_other_content_is_an_error(decoder):
    sha256 = np.array([np.frombuffer(digest_of(record), np.uint8) for record in numbered(10)])
    sha256[6, 31] ^= 1
    with images(sha256=sha256) as examples:
        with pytest.raises(FitError, match="another image") as error:
            drawn(examples, 3)
        assert error.value.where == "6"


def test_records_are_found_by_their_id():
    features = SimpleNamespace(ids=["a", "b", "c"], source="photos")
    listed = [loader.Record(name, name) for name in "xcba"]
    assert [record.id for record in records_of(features, listed, np.array([2, 0]))] == ["c", "a"]


def maps(folder, n: int = 10, **changes) -> MapExamples:
    return MapExamples(map_set(folder, n, **changes), LAYER, np.arange(n), CODES[:n])


@pytest.mark.parametrize("store", ["float16", "float32"])
@pytest.mark.usefixtures("no_thread_left")
def test_maps_of_the_centre_come_plainly(tmp_path, store):
    examples = maps(tmp_path, views=2, store=store)
    at = np.array([7, 0, 3, 9, 9])
    made = list(examples.plain(at, batch_size=2))
    assert examples.cached
    assert [batch.at.tolist() for batch in made] == [[7, 0], [3, 9], [9]]
    assert np.array_equal(
        torch.cat([batch.x for batch in made]).numpy(), maps_of(10, 2, store)[at, 0].astype(np.float32)
    )
    assert torch.cat([batch.y for batch in made]).tolist() == CODES[at].tolist()
    assert all(batch.x.dtype == torch.float32 for batch in made)
    assert all(batch.x.is_contiguous(memory_format=torch.channels_last) for batch in made)


def test_maps_of_a_part_are_those_of_their_rows(tmp_path):
    examples = MapExamples(map_set(tmp_path, 10), LAYER, np.array([7, 2, 9]), CODES[:3])
    [batch] = examples.plain(np.array([2, 0]), batch_size=5)
    assert np.array_equal(batch.x.numpy(), maps_of(10, 1)[[9, 7], 0].astype(np.float32))


def views_seen(examples: MapExamples, values: np.ndarray, n: int, **more) -> list[tuple[int, int]]:
    """Which example and which view of it came, one after the other."""
    found = []
    for batch in drawn(examples, n, at=np.arange(len(values)), **more):
        for place, x in zip(batch.at.tolist(), batch.x.numpy(), strict=True):
            [view] = [v for v, value in enumerate(values[place]) if np.array_equal(value.astype(np.float32), x)]
            found.append((place, view))
    return found


@pytest.mark.usefixtures("no_thread_left")
def test_an_example_shows_each_of_its_views_before_it_shows_one_again(tmp_path):
    seen = views_seen(maps(tmp_path, views=4), maps_of(10, 4), 20)
    assert Counter(seen[:40]) == {(place, view): 1 for place in range(10) for view in range(4)}
    assert Counter(seen[40:]) == Counter(seen[:40])
    orders = {place: tuple(view for other, view in seen if other == place) for place in range(10)}
    assert len(set(orders.values())) > 5, "each in an order of its own"


@pytest.mark.parametrize(
    ("augment", "flips", "views"),
    [
        (NONE, True, [0]),
        (Augment(crop=False, flip=True), True, [0, 1]),
        (Augment(crop=True, flip=False), True, [0]),
        (BOTH, True, [0, 1, 2, 3]),
        (NONE, False, [0]),
        (Augment(crop=True, flip=False), False, [0, 1, 2, 3]),
        (BOTH, False, [0, 1, 2, 3]),
        (Augment(crop=False, flip=True), False, [0]),
    ],
)
def test_views_are_shown_that_the_augmentation_allows(tmp_path, augment, flips, views):
    examples = maps(tmp_path, views=4, flips=flips)
    assert examples.views(augment) == views
    assert {view for _, view in views_seen(examples, maps_of(10, 4), 10, augment=augment)} == set(views)


def test_maps_are_read_ahead_but_not_far(tmp_path, monkeypatch):
    examples = maps(tmp_path)
    read, ahead = [], threading.Event()
    plain = examples._read

    def counted(at, views):
        read.append(at)
        if len(read) == AHEAD + 2:
            ahead.set()
        return plain(at, views)

    monkeypatch.setattr(examples, "_read", counted)
    batches = examples.drawn(np.arange(10), batch_size=2, seed=0, start=0, augment=NONE)
    next(batches)
    assert ahead.wait(30)
    batches.close()
    assert len(read) == AHEAD + 2


@pytest.mark.usefixtures("no_thread_left")
def test_reading_leaves_the_cores_to_others(tmp_path):
    threads, found = torch.get_num_threads(), []
    drawn(maps(tmp_path), 3)
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert [torch.get_num_threads(), *found] == [threads] * 2


def test_what_the_thread_raises_comes_out(tmp_path, monkeypatch):
    examples = maps(tmp_path)
    monkeypatch.setattr(examples._maps, "stored_row", lambda layer, row: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        drawn(examples, 3)


def test_a_map_that_was_changed_is_an_error(tmp_path):
    examples = maps(tmp_path)
    [path, *_] = sorted(tmp_path.rglob("shards/*.h5"))
    data = bytearray(path.read_bytes())
    values = maps_of(10, 1)
    at = next(at for value in values[:, 0] if (at := data.find(value.tobytes())) > 0)
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="not the recorded one"):
        list(examples.plain(np.arange(10), batch_size=4))


def test_only_layers_that_are_there_can_be_read(tmp_path):
    with pytest.raises(StoreError, match="no layer 'layer9:map'"):
        MapExamples(map_set(tmp_path, 3), "layer9:map", np.arange(3), CODES[:3])
