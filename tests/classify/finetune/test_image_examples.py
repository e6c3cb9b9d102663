from types import SimpleNamespace

import numpy as np
import pytest
import torch

from classify.finetune.examples import draws
from classify.finetune.image_examples import records_of
from extract import loader
from extract.errors import FitError
from extract.loader import Drawn
from extract.pixels import PixelStream
from tests.classify.finetune.tiny_examples import BOTH, CODES, NONE, assert_same, drawn, images
from tests.instant import Instant, digest_of, extractor, numbered


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
