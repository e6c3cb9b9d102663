import hashlib
import io

import numpy as np
import pytest
from PIL import Image
from scipy.sparse import csr_array

from extract.errors import ImageError
from extract.given import as_given, content_of, contents_of, name_of, record_of
from extract.images import decode
from extract.record import Failure, Status
from tests.tiny import picture, put

PIXELS = np.asarray(picture(1))


@pytest.mark.parametrize(
    "images",
    [["a.png", "b.png"], np.array(["a.png", "b.png"]), np.array([["a.png"], ["b.png"]], object)],
    ids=["list", "array", "column"],
)
def test_paths_come_as_lists_arrays_and_columns(images):
    assert [str(each) for each in as_given(images)] == ["a.png", "b.png"]


def test_a_batch_of_pixels_is_taken_apart():
    batch = np.stack([PIXELS, PIXELS[::-1]])
    assert [np.array_equal(*pair) for pair in zip(as_given(batch), batch, strict=True)] == [True, True]


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([1.5], "image 0 is object of type float"),
        (np.zeros((2, 3)), "array (3,) of float64"),
        (np.zeros((2, 8, 8, 3)), "array (8, 8, 3) of float64"),
        (np.zeros((2, 8, 8, 4), np.uint8), "array (8, 8, 4) of uint8"),
        ([], "no images"),
        (7, "one object of type int instead of several"),
        (np.array("a.png"), "instead of several"),
        ("a.png", "one object of type str instead of several"),
        (csr_array(np.eye(3)), "a sparse matrix"),
    ],
)
def test_what_is_no_image_is_refused(images, said):
    with pytest.raises(ImageError) as raised:
        as_given(images)
    assert said in str(raised.value)
    assert "uint8" in raised.value.remedy
    assert isinstance(raised.value, ValueError), "as scikit-learn has it"


def test_a_file_is_known_by_its_bytes_and_pixels_by_theirs(tmp_path):
    path = put(tmp_path / "a.png", 1)
    assert content_of(path) == content_of(str(path)) == hashlib.sha256(path.read_bytes()).digest()
    assert content_of(PIXELS) == content_of(PIXELS.copy()) == content_of(picture(1))
    assert content_of(PIXELS) != content_of(PIXELS[::-1])


def test_pixels_are_written_without_loss_under_the_digest_that_they_are_known_by(tmp_path):
    content = content_of(PIXELS)
    assert isinstance(content, bytes)
    record = record_of(PIXELS, content, tmp_path)
    data = (tmp_path / f"{content.hex()}.bmp").read_bytes()
    assert record.path == str(tmp_path / f"{content.hex()}.bmp")
    assert hashlib.sha256(data).digest() == content
    assert np.array_equal(decode(data), PIXELS)


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "I;16"])
def test_an_image_of_pillows_becomes_what_its_file_would(mode, tmp_path):
    image = picture(2).convert("RGBA") if mode == "RGBA" else picture(2).convert("L" if mode == "I;16" else mode)
    if mode == "RGBA":
        image.putalpha(100)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image, np.uint16) * 250)
    file = io.BytesIO()
    image.save(file, format="PNG")
    content = content_of(image)
    assert isinstance(content, bytes)
    written = record_of(image, content, tmp_path).path
    with open(written, "rb") as bmp:
        assert np.array_equal(decode(bmp.read()), decode(file.getvalue()))


def test_what_cannot_be_read_comes_back_as_a_failure(tmp_path):
    cut = put(tmp_path / "cut.png", 3)
    cut.write_bytes(cut.read_bytes()[:200])
    with Image.open(cut) as opened:
        found = contents_of([tmp_path / "gone.png", opened, Image.new("F", (9, 9))], workers=2)
    assert [each.status for each in found if isinstance(each, Failure)] == [
        Status.MISSING,
        Status.DAMAGED,
        Status.NOT_AN_IMAGE,
    ]


def test_images_are_called_by_their_path_or_their_number(tmp_path):
    assert [name_of(tmp_path / "a.png", 0), name_of("b.png", 1), name_of(PIXELS, 2)] == [
        str(tmp_path / "a.png"),
        "b.png",
        "2",
    ]
