import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_photos import encoded, photo

from classify.hygiene.pixels import MAX_THUMBNAIL_BYTES, Images, open_images
from extract.record import Status
from extract.sources import open_source

FILES = {f"cat/{n}.jpg": encoded(photo(n), quality=90) for n in range(3)}


def picture_of(uri: str) -> Image.Image:
    head, data = uri.split(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_images_are_found_where_they_were_extracted_from(make_set) -> None:
    images, notes = open_images(make_set(FILES))
    assert images is not None
    assert notes == []
    for row in range(3):
        expected = photo(row).convert("L").resize((64, 64), Image.Resampling.BILINEAR)
        grey = images.grey(row)
        assert grey is not None
        assert (grey.shape, grey.dtype) == ((64, 64), np.float32)
        assert abs(grey - np.asarray(expected)).mean() < 4  # a JPEG that was made smaller while it was decoded
    assert images.trouble == []


def test_many_are_read_by_threads_in_order_and_told_of(make_set) -> None:
    class Told:
        def __init__(self) -> None:
            self.steps, self.bad, self.total = 0, 0, 0

        def start(self, what: str, total: int) -> None:
            self.total = total

        def advance(self, steps: int, bad: int = 0) -> None:
            self.steps, self.bad = self.steps + steps, self.bad + bad

        def note(self, text: str) -> None:
            raise AssertionError(text)

    features = make_set(FILES)
    Path(features.source, features.ids[1]).unlink()
    images, told = Images(features, open_source(features.source).records), Told()
    greys, good = images.greys(np.array([2, 1, 0, 2]), workers=2, progress=told)
    assert good.tolist() == [True, False, True, True]
    assert not greys[1].any()
    np.testing.assert_array_equal(greys[0], images.grey(2))
    np.testing.assert_array_equal(greys[2], images.grey(0))
    assert (told.total, told.steps, told.bad) == (4, 4, 1)


def test_no_image_that_is_missing_changed_or_broken_is_shown_and_all_are_counted(make_set) -> None:
    files = {**FILES, "cat/3.jpg": b"\xff\xd8 no image", "cat/4.jpg": encoded(photo(4)), "cat/5.jpg": encoded(photo(5))}
    features = make_set(files)
    folder = Path(features.source)
    (folder / "cat/0.jpg").unlink()
    (folder / "cat/1.jpg").write_bytes(encoded(photo(99)))
    features.sha256[4] = 0
    features.status[5] = Status.DAMAGED
    images, notes = open_images(features)
    assert images is not None
    assert notes == [f"1 of 6 images are not in {folder} any more"]
    for row in (0, 1, 3, 4, 5):
        assert images.grey(row) is None
        assert images.thumbnail(row) is None
    assert images.grey(2) is not None
    assert images.trouble == [
        "1 image is not there any more, and could not be looked at",
        "1 image is of other content, and could not be looked at",
        "2 images are not readable now, and could not be looked at",
        "1 image is of unknown content, and could not be looked at",
    ]


def test_an_image_for_which_there_is_no_memory_is_none(make_set, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(data: bytes, **options: int) -> None:
        raise MemoryError

    images, _ = open_images(make_set(FILES))
    assert images is not None
    monkeypatch.setattr("classify.hygiene.pixels.decode", decode)
    assert images.grey(0) is None


def test_a_thumbnail_is_small_upright_and_says_nothing_else(make_set) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Secret Camera"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8))
    features = make_set({"cat/a.jpg": encoded(photo(1), exif=exif), "cat/b.png": encoded(noise, "PNG")})
    images, _ = open_images(features)
    assert images is not None
    uris = [images.thumbnail(row) for row in range(2)]
    assert all(uri and len(uri) < 4 / 3 * MAX_THUMBNAIL_BYTES + 100 for uri in uris)
    small = picture_of(uris[0] or "")
    assert small.size == (72, 96)  # turned by its EXIF data
    assert not small.getexif()
    assert "exif" not in small.info
    upright = photo(1).rotate(-90, expand=True).resize((72, 96))
    assert abs(np.asarray(small, np.float32) - np.asarray(upright)).mean() < 12
    assert picture_of(images.thumbnail(0, 32) or "").size == (24, 32)


def test_what_cannot_be_made_small_enough_has_no_thumbnail(make_set, monkeypatch: pytest.MonkeyPatch) -> None:
    images, _ = open_images(make_set(FILES))
    assert images is not None
    monkeypatch.setattr("classify.hygiene.pixels.MAX_THUMBNAIL_BYTES", 100)
    assert images.thumbnail(0) is None


def test_another_place_can_be_named(make_set, tmp_path: Path) -> None:
    features = make_set(FILES)
    moved = Path(features.source).rename(tmp_path / "moved, below nothing")
    images, notes = open_images(features)
    assert images is None
    assert "--data DATA" in notes[0]
    images, notes = open_images(features, str(moved))
    assert images is not None
    assert notes == []
    assert images.grey(0) is not None
    features.source = str(moved)
    assert open_images(features)[0] is not None


def test_a_manifest_with_a_root_is_found_again(make_set, tmp_path: Path) -> None:
    features = make_set(FILES)
    manifest = tmp_path / "lists" / "some.csv"
    manifest.parent.mkdir()
    manifest.write_text("path,label\n" + "".join(f"{name},cat\n" for name in features.ids))
    features.source = open_source(str(manifest), Path(features.source)).origin
    images, notes = open_images(features)
    assert images is not None
    assert notes == []
    assert images.grey(1) is not None


@pytest.mark.parametrize("source", ["", "/no/such/folder", "/no/such.csv, below /nor/this", "\0", "x" * 5000])
def test_a_place_that_is_none_is_said_in_words(make_set, source: str) -> None:
    features = make_set(FILES)
    features.source = source
    images, notes = open_images(features)
    assert images is None
    assert len(notes) == 1


def test_torchvision_is_left_alone_unless_asked_for(make_set) -> None:
    features = make_set(FILES)
    features.source = "torchvision:MNIST, below /data"
    images, notes = open_images(features)
    assert images is None
    assert "none is looked at" in notes[0]


def test_other_images_altogether_are_no_images(make_set, tmp_path: Path) -> None:
    features = make_set(FILES)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.png").write_bytes(encoded(photo(1), "PNG"))
    images, notes = open_images(features, str(tmp_path / "other"))
    assert images is None
    assert notes[0].startswith("none of the images is in ")
