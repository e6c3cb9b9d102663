import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from extract import golden, images
from extract.images import MAX_PIXELS, ORIENTATION, SCALES, decode
from extract.record import Failure, Status
from tests.tiny import picture

# What images.py ignores at import, pytest's own filters bring back.
pytestmark = [
    pytest.mark.filterwarnings("ignore:::PIL"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]

UPRIGHT = np.asarray(picture(1, (24, 16)))
STORED = {  # how a camera stores the upright picture under each EXIF orientation (EXIF 2.3, table 4)
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: np.rot90(UPRIGHT, 1),
    7: UPRIGHT[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(UPRIGHT, -1),
}

two_roads = pytest.mark.skipif(images.simplejpeg is None, reason="simplejpeg is not installed: there is one road only")


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes, **options) -> np.ndarray:
    image = decode(data, **options)
    assert isinstance(image, np.ndarray), image
    assert image.dtype == np.uint8
    assert image.shape[2:] == (3,)
    return image


def status(data: bytes) -> int:
    failure = decode(data)
    assert isinstance(failure, Failure)
    assert failure.reason
    return failure.status


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    parts = [(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)), *chunks, (b"IEND", b"")]
    packed = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_give_the_very_pixels(kind, options):
    assert np.array_equal(decoded(encoded(picture(1), kind, **options)), np.asarray(picture(1)))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_is_what_pillow_decodes(options):
    data = encoded(picture(1), "JPEG", **options)
    assert np.array_equal(decoded(data), np.asarray(Image.open(io.BytesIO(data))))


def test_gray_fills_all_three_channels():
    gray = picture(1).convert("L")
    expected = np.repeat(np.asarray(gray)[..., None], 3, axis=2)
    assert np.array_equal(decoded(encoded(gray, "PNG")), expected)
    assert np.abs(decoded(encoded(gray, "JPEG", quality=95)).astype(int) - expected).max() < 12


def test_cmyk_jpeg_looks_as_the_original():
    data = encoded(picture(1).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decoded(data).astype(int) - np.asarray(picture(1))).mean() < 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_is_scaled_and_not_clipped_to_white(kind):
    gray = np.asarray(picture(1).convert("L"))
    wide = Image.fromarray(gray.astype(np.uint16) * 257)
    got = decoded(encoded(wide, kind)).astype(int)
    assert np.abs(got - gray[..., None]).max() <= 1


def test_one_bit_images_are_black_and_white():
    bits = picture(1).convert("1")
    assert np.array_equal(decoded(encoded(bits, "PNG"))[..., 0], np.asarray(bits) * np.uint8(255))


def test_palettes_become_their_colours():
    palette = picture(1).quantize(16)
    assert np.array_equal(decoded(encoded(palette, "PNG")), np.asarray(palette.convert("RGB")))


def test_the_transparent_colour_of_a_palette_lies_on_white():
    palette = picture(1).quantize(4)
    expected = np.asarray(palette.convert("RGB")).copy()
    expected[np.asarray(palette) == 2] = 255
    assert np.array_equal(decoded(encoded(palette, "PNG", transparency=2)), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_opaque_alpha_channel_changes_nothing(mode):
    image = picture(1).convert("L" if mode == "LA" else "RGB")
    assert np.array_equal(decoded(encoded(image.convert(mode), "PNG")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_lies_on_white(mode):
    image = picture(1).convert(mode)
    alpha = np.asarray(picture(2).convert("L")).copy()
    alpha[:9] = 0
    image.putalpha(Image.fromarray(alpha))
    share = alpha[..., None] / 255
    expected = np.asarray(image.convert("RGBA"))[..., :3] * share + 255 * (1 - share)
    got = decoded(encoded(image, "PNG"))
    assert np.abs(got - expected).max() <= 1
    assert (got[:9] == 255).all()


def test_the_transparent_colour_of_an_rgb_png_lies_on_white():
    image = Image.new("RGB", (4, 4), (10, 20, 30))
    image.putpixel((0, 0), (200, 100, 50))
    got = decoded(encoded(image, "PNG", transparency=(10, 20, 30)))
    assert got[0, 0].tolist() == [200, 100, 50]
    assert (got.reshape(-1, 3)[1:] == 255).all()


def test_the_first_frame_of_an_animation_counts():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    got = decoded(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert (got == [255, 0, 0]).all()


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_every_exif_orientation_ends_upright(kind, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    got = decoded(encoded(Image.fromarray(np.ascontiguousarray(STORED[orientation])), kind, exif=exif, **options))
    assert got.shape == UPRIGHT.shape
    assert np.abs(got.astype(int) - UPRIGHT).max() <= (12 if kind == "JPEG" else 0)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert np.array_equal(decoded(encoded(picture(1), "PNG", exif=exif)), np.asarray(picture(1)))


def exif_block(*entries: tuple[int, int, int, int]) -> bytes:
    """A little-endian EXIF block of (tag, type, count, value) entries, as they are."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage that is no TIFF header",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        exif_block((ORIENTATION, 2, 4, 0x00414141)),
        exif_block((ORIENTATION, 5, 1, 0x7FFFFFFF)),
        exif_block((0x8769, 4, 1, 0x7FFFFFFF)),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_damaged_exif_does_not_cost_the_image(kind, exif):
    plain = decoded(encoded(picture(1), kind))
    assert np.array_equal(decoded(encoded(picture(1), kind, exif=exif)), plain)


@pytest.mark.parametrize(
    "broken",
    [
        (0x8769, 4, 1, 0x7FFFFFFF),  # a sub-IFD beyond the end
        (0x010E, 2, 500, 0x7FFFFFFF),  # a description beyond the end
        (0x829A, 5, 1, 0x7FFFFFFF),  # an exposure time beyond the end
        (0x9C9B, 1, 3, 0x00FFFFFF),
        (0xC4A5, 99, 1, 0),  # a type that does not exist
    ],
)
def test_an_orientation_counts_beside_damaged_tags(broken):
    exif = exif_block((ORIENTATION, 3, 1, 6), broken)
    data = encoded(Image.fromarray(np.ascontiguousarray(STORED[6])), "PNG", exif=exif)
    assert np.array_equal(decoded(data), UPRIGHT)


def test_content_decides_and_the_bytes_may_go_on_behind_it():
    data = encoded(picture(1), "PNG")
    assert np.array_equal(decoded(data + b"trailing bytes"), np.asarray(picture(1)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_truncated_file_is_damaged(kind, share):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    data = encoded(noise, kind)
    assert status(data[: int(share * len(data))]) in (Status.DAMAGED, Status.NOT_AN_IMAGE)


def test_what_is_no_image_says_so():
    assert status(b"") == Status.EMPTY
    assert status(b"these are words\n" * 9) == Status.NOT_AN_IMAGE
    assert status(bytes(1000)) == Status.NOT_AN_IMAGE
    assert status(b"<svg xmlns='http://www.w3.org/2000/svg'/>") == Status.NOT_AN_IMAGE


def test_formats_that_run_programs_are_refused_by_content():
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n/x 1 def\nshowpage\n%%EOF\n"
    assert status(eps) == Status.NOT_AN_IMAGE
    assert status(encoded(picture(1), "PPM")) == Status.NOT_AN_IMAGE


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_of_unknown_range_are_refused(mode):
    assert status(encoded(picture(1).convert("L").convert(mode), "TIFF")) == Status.NOT_AN_IMAGE


@pytest.mark.parametrize("size", [(12_000, 12_000), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_refused_before_one_is_decoded(size, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    assert status(png(*size, (b"IDAT", zlib.compress(bytes(100))))) == Status.TOO_LARGE


def test_the_limit_of_pixels_is_on_their_number(monkeypatch):
    monkeypatch.setattr("extract.images.MAX_PIXELS", 40 * 36)
    assert decoded(encoded(picture(1, (40, 36)), "PNG")).shape == (36, 40, 3)
    assert status(encoded(picture(1, (41, 36)), "PNG")) == Status.TOO_LARGE
    assert MAX_PIXELS == 128_000_000


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (10, 2001)])
def test_thin_strips_are_refused(size):
    assert status(encoded(Image.new("RGB", size), "PNG")) == Status.TOO_LARGE


def test_strips_within_the_limit_and_single_pixels_are_images():
    assert decoded(encoded(Image.new("RGB", (10, 2000)), "PNG")).shape == (2000, 10, 3)
    assert decoded(encoded(Image.new("RGB", (1, 1)), "PNG")).shape == (1, 1, 3)


def test_an_image_without_pixels_is_none():
    gif = bytearray(encoded(picture(1), "GIF"))
    assert gif[6:8] == bytes([40, 0])
    gif[6:8] = bytes(2)
    at = gif.index(b",\0\0\0\0" + bytes([40, 0]))
    gif[at + 5 : at + 7] = bytes(2)
    assert isinstance(decode(bytes(gif)), Failure)
    assert isinstance(decode(png(0, 0, (b"IDAT", zlib.compress(b"")))), Failure)


VALID = {kind: encoded(picture(3), kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")}
SPOILT = {
    "changes": st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    "header": st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), max_size=3),
    "end": st.floats(0.02, 1),
}


def spoil(valid: bytes, changes, header, end: float) -> bytes:
    data = bytearray(valid)
    for place, value in [*((int(share * len(data)), value) for share, value in changes), *header]:
        data[place] = value
    return bytes(data[: int(end * len(data))])


@settings(max_examples=300)
@given(kind=st.sampled_from(sorted(VALID)), **SPOILT)
def test_any_mutation_is_an_image_or_a_failure(kind, changes, header, end):
    got = decode(spoil(VALID[kind], changes, header, end))
    assert isinstance(got, np.ndarray | Failure)
    if isinstance(got, np.ndarray):
        assert got.dtype == np.uint8
        assert got.shape[2:] == (3,)
        assert got.size > 0


def test_the_transparent_grey_of_sixteen_bits_lies_on_white():
    values = np.full((4, 4), 63_000, np.uint16)
    values[0, 0] = 1000
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", transparency=1000)
    got = decoded(file.getvalue())
    assert got[0, 0].tolist() == [255, 255, 255]
    assert got[1, 1].tolist() == [245, 245, 245]


def roads(data: bytes, **options) -> Iterator[np.ndarray | Failure]:
    """What comes out by simplejpeg, and by Pillow alone."""
    yield decode(data, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "simplejpeg", None)
        yield decode(data, **options)


def same(data: bytes, **options) -> np.ndarray | Failure:
    """Decode on both roads, which must lead to one place."""
    short, plain = roads(data, **options)
    if isinstance(plain, Failure):
        assert short == plain
    else:
        assert np.array_equal(short, plain)
    return plain


@pytest.fixture
def taken(monkeypatch) -> list[bytes]:
    """The files that simplejpeg decoded to the end."""
    if images.simplejpeg is None:
        pytest.skip("simplejpeg is not installed: there is one road only")
    seen, real = [], images.simplejpeg.decode_jpeg

    class Watched:
        @staticmethod
        def decode_jpeg(data: bytes, **options) -> np.ndarray:
            found = real(data, **options)
            seen.append(data)
            return found

    monkeypatch.setattr(images, "simplejpeg", Watched)
    return seen


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (45, 61, 3), np.uint8))
KINDS = {
    "baseline": {},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "coarse": {"quality": 3},
    "fine": {"quality": 100, "subsampling": 0},
    "restart markers": {"restart_marker_blocks": 2},
    "restart markers, progressive": {"restart_marker_rows": 1, "progressive": True},
    "RGB": {"keep_rgb": True},
    "Photoshop": {"subsampling": 0, "comment": b"words", "icc_profile": bytes(70_000), "dpi": (72, 72)},
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_both_roads_give_the_very_pixels(taken, mode, options):
    for image in (NOISE, picture(1, (200, 150))):
        data = encoded(image.convert(mode), "JPEG", **options)
        assert isinstance(same(data), np.ndarray)
        assert taken.pop() == data, "it went by simplejpeg"


@two_roads
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_both_roads_give_the_very_pixels_of_every_small_size(subsampling):
    for width in range(1, 20):
        for height in (1, 2, 7, 8, 9, 16, 17):
            data = encoded(NOISE.resize((width, height)), "JPEG", subsampling=subsampling)
            assert same(data).shape == (height, width, 3)


@pytest.mark.parametrize("orientation", range(10))
def test_both_roads_turn_an_image_upright(taken, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    for size in (NOISE.size, (1, 30), (30, 1), (1, 1)):
        assert isinstance(same(encoded(NOISE.resize(size), "JPEG", exif=exif)), np.ndarray)
    assert len(taken) == 4


@two_roads
@pytest.mark.parametrize("kind", range(14))
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_an_orientation_of_another_type_means_the_same_on_both_roads(kind, count):
    for value in (6, 0x36, 0x2036, 0x00060006, 26, 0x40C00000, 2**32 - 1):
        assert isinstance(same(encoded(NOISE, "JPEG", exif=exif_block((ORIENTATION, kind, count, value)))), np.ndarray)


@two_roads
def test_an_orientation_in_xmp_means_the_same_on_both_roads():
    xmp = b"<x:xmpmeta><rdf:Description tiff:Orientation='6' tiff:Orientation=\"6\"/></x:xmpmeta>"
    turned = same(encoded(NOISE, "JPEG", xmp=xmp))
    assert turned.shape == (61, 45, 3)


def test_several_pictures_in_one_file_give_the_first(taken):
    frames = [picture(i, (64, 48)) for i in range(3)]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "MPO"
    assert np.abs(same(data).astype(int) - np.asarray(frames[0])).max() < 32
    assert taken == [data]


@two_roads
def test_what_follows_the_image_does_not_matter_on_either_road():
    data = encoded(NOISE, "JPEG")
    for tail in (b"trailing bytes", bytes(99), b"\xff\xd9", encoded(picture(1), "JPEG"), b"\xff\xd8\xff"):
        assert np.array_equal(same(data + tail), decoded(data))


def test_cmyk_goes_by_pillow(taken):
    data = encoded(NOISE.convert("CMYK"), "JPEG")
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(same(data), np.asarray(image.convert("RGB")))
    assert taken == []


@two_roads
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}])
def test_a_file_that_ends_anywhere_means_the_same_on_both_roads(options):
    data = encoded(NOISE, "JPEG", **options)
    outcomes = [same(data[:end]) for end in range(1, len(data), 7)]
    assert any(isinstance(outcome, Failure) for outcome in outcomes)
    # All that is behind the last block may be missing.
    assert isinstance(same(data[:-1]), np.ndarray | Failure)
    assert isinstance(same(data[:-2]), np.ndarray | Failure)


JPEGS = [encoded(NOISE.convert(mode), "JPEG", **options) for mode in ("RGB", "L") for options in KINDS.values()]


@two_roads
@settings(max_examples=500)
@given(data=st.sampled_from(JPEGS), short_px=st.sampled_from([None, 5, 11, 22]), **SPOILT)
def test_any_mutation_means_the_same_on_both_roads(data, short_px, changes, header, end):
    same(spoil(data, changes, header, end), short_px=short_px)


@two_roads
def test_damage_that_pillow_overlooks_goes_by_pillow(taken):
    data = bytearray(encoded(NOISE, "JPEG", restart_marker_blocks=1))
    at = data.rindex(b"\xff\xd3")
    data[at + 1] = 0xD5
    assert isinstance(same(bytes(data)), np.ndarray)
    assert taken == []


@two_roads
def test_golden_images_mean_the_same_on_both_roads():
    for path in Path(golden.__file__).parent.glob("*.jpg"):
        assert isinstance(same(path.read_bytes()), np.ndarray)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_scaled_jpeg_is_the_same_on_both_roads(taken, mode, options):
    image = picture(1, (203, 151)).convert(mode)
    shapes = {short_px: same(encoded(image, "JPEG", **options), short_px=short_px).shape for short_px in SHORT}
    assert shapes == SHORT
    assert len(taken) == len(SHORT)


SHORT = {
    2: (19, 26, 3),
    18: (19, 26, 3),
    19: (38, 51, 3),
    37: (38, 51, 3),
    38: (76, 102, 3),
    75: (76, 102, 3),
    76: (151, 203, 3),
    151: (151, 203, 3),
    9999: (151, 203, 3),
}
"""What an image of 203 x 151 is scaled to, if its shorter side is to have so many pixels at least."""


def test_a_scaled_jpeg_is_scaled_by_pillow_too(monkeypatch):
    monkeypatch.setattr(images, "simplejpeg", None)
    data = encoded(picture(1, (203, 151)), "JPEG")
    assert {short_px: decoded(data, short_px=short_px).shape for short_px in SHORT} == SHORT


@given(width=st.integers(2, 70), height=st.integers(2, 70), short_px=st.integers(2, 40))
def test_a_jpeg_is_never_scaled_below_what_is_asked(width, height, short_px):
    got = same(encoded(NOISE.resize((width, height)), "JPEG"), short_px=short_px)
    short = min(width, height)
    assert min(got.shape[:2]) >= min(short, short_px)
    assert max(width, height) / max(got.shape[:2]) <= max(SCALES)
    if short >= short_px * 2:
        assert min(got.shape[:2]) < short


def test_a_scaled_jpeg_is_upright(monkeypatch):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = encoded(picture(1, (200, 120)), "JPEG", exif=exif)
    assert same(data, short_px=60).shape == (100, 60, 3)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "GIF"])
def test_nothing_but_jpeg_is_scaled(kind):
    data = encoded(picture(1, (200, 120)), kind)
    assert np.array_equal(decoded(data, short_px=10), decoded(data))


def test_pixels_lie_in_the_room_that_is_given_where_they_can(taken):
    room = bytearray(45 * 61 * 3)
    got = decoded(encoded(NOISE, "JPEG"), room=lambda n_bytes: room if n_bytes == len(room) else pytest.fail("other"))
    assert np.may_share_memory(got, np.frombuffer(room, np.uint8))
    assert got.tobytes() == bytes(room)


@two_roads
def test_room_that_cannot_be_had_is_for_the_caller_to_explain():
    def none(n_bytes: int) -> bytearray:
        raise MemoryError(n_bytes)

    with pytest.raises(MemoryError):
        decode(encoded(NOISE, "JPEG"), room=none)
