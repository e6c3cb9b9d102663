import threading
from collections import Counter

import numpy as np
import pytest
import torch

from classify.finetune.map_examples import AHEAD, MapExamples
from classify.finetune.plan import Augment
from extract.errors import StoreError
from tests.classify.finetune.tiny_examples import BOTH, CODES, NONE, drawn, maps
from tests.classify.finetune.tiny_maps import LAYER, map_set, maps_of


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
