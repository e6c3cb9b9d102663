"""Examples of ten images and of their maps, and what is drawn of them."""

from itertools import islice
from types import SimpleNamespace

import numpy as np

from classify.finetune.image_examples import ImageExamples
from classify.finetune.map_examples import MapExamples
from classify.finetune.plan import Augment
from tests.classify.finetune.tiny_maps import LAYER, map_set
from tests.instant import digest_of, extractor, numbered

BOTH, NONE = Augment(crop=True, flip=True), Augment(crop=False, flip=False)
CODES = np.arange(100, dtype=np.int64) % 3


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


def maps(folder, n: int = 10, **changes) -> MapExamples:
    return MapExamples(map_set(folder, n, **changes), LAYER, np.arange(n), CODES[:n])


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
