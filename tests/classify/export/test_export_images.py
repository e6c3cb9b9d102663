import pytest

from classify.export.images import NOISE, images_of, own_images
from extract import golden, images
from extract.errors import OptionError
from extract.recipe import Preprocessing
from extract.record import Failure
from extract.sources import read_bytes
from tests.tiny import put, tiny_folder

PRESET = Preprocessing(50, 45, "bilinear", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def test_images_of_our_own_are_at_hand_and_all_different():
    found = own_images(PRESET)
    assert found.compare[: len(golden.RECORDS)] == golden.RECORDS
    contents = [read_bytes(record, images.MAX_BYTES) for record in found.compare]
    assert len(set(map(str, contents))) == len(golden.RECORDS) + NOISE
    for content in contents:
        assert isinstance(content, bytes)
        assert not isinstance(images.decode(content), Failure)


def test_ranges_come_from_the_images_that_a_run_was_made_from(tmp_path):
    for split, n in (("train", 6), ("val", 4), ("test", 2)):
        tiny_folder(tmp_path / split, per_class=n)
    found = images_of(str(tmp_path), None, most=3, ranges=100)
    assert {record.split for record in found.compare} == {"test"}
    assert {record.split for record in found.ranges} == {"train", "val"}
    assert len(found.compare) == 3
    assert len(found.ranges) == 20
    assert {record.label for record in found.compare} == {"cat", "dog"}


def test_without_splits_half_of_the_images_give_ranges(tmp_path):
    tiny_folder(tmp_path, per_class=5)
    found = images_of(str(tmp_path), None, most=100, ranges=3)
    assert not set(found.compare) & set(found.ranges)
    assert (len(found.compare), len(found.ranges)) == (5, 3)
    assert len(images_of(str(tmp_path), None, most=100, ranges=0).compare) == 10


def test_one_image_is_too_few_for_int8(tmp_path):
    put(tmp_path / "a.png", 0)
    with pytest.raises(OptionError, match="too few images for int8"):
        images_of(str(tmp_path), None, most=9, ranges=9)
