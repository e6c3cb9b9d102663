import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from torchvision.models import EfficientNet_B0_Weights, Inception_V3_Weights, ResNet18_Weights, ResNet50_Weights
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from extract.backbones.backbone import preprocessing_of
from extract.forward import normalise
from extract.images import MAX_PIXELS, decode, pixels
from extract.spec import INTERPOLATIONS, Failure, Preprocessing, Status
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
ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    image = decode(data)
    assert isinstance(image, Image.Image), image
    assert image.mode == "RGB"
    return np.asarray(image)


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
    assert isinstance(decode(encoded(picture(1, (40, 36)), "PNG")), Image.Image)
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
PRESET = preprocessing_of(ResNet18_Weights.IMAGENET1K_V1.transforms())


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(sorted(VALID)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    header=st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), max_size=3),
    end=st.floats(0.02, 1),
)
def test_any_mutation_is_an_image_or_a_failure(kind, changes, header, end):
    data = bytearray(VALID[kind])
    for place, value in [*((int(share * len(data)), value) for share, value in changes), *header]:
        data[place] = value
    got = decode(bytes(data[: int(end * len(data))]))
    assert isinstance(got, Image.Image | Failure)
    if isinstance(got, Image.Image):
        assert got.mode == "RGB"
        assert min(got.size) > 0
        if got.width * got.height < 10**6:
            assert pixels(got, PRESET).shape == (3, 224, 224)


@pytest.mark.parametrize(
    "weights",
    [
        ResNet18_Weights.IMAGENET1K_V1,
        ResNet50_Weights.IMAGENET1K_V2,
        Inception_V3_Weights.IMAGENET1K_V1,
        EfficientNet_B0_Weights.IMAGENET1K_V1,
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(40, 36), (257, 255), (224, 224), (640, 331), (30, 401)])
def test_pixels_are_bitwise_those_of_torchvisions_preset(weights, size):
    transform = weights.transforms()
    preset = preprocessing_of(transform)
    image = picture(5, size)
    got = normalise(torch.from_numpy(pixels(image, preset))[None], preset)[0]
    expected = transform(image)
    assert got.dtype == expected.dtype
    assert got.equal(expected)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [(40, 36), (33, 33), (1, 150), (199, 7), (65, 64)])
@pytest.mark.parametrize("sides", [(33, 32), (32, 32), (35, 10)])
def test_every_interpolation_and_shape_is_bitwise_as_in_torchvision(interpolation, size, sides):
    resize_size, crop_size = sides
    preset = Preprocessing(resize_size, crop_size, interpolation, (0.5,) * 3, (0.5,) * 3)
    image = picture(6, size)
    resized = F.resize(image, [resize_size], InterpolationMode(interpolation))
    expected = F.pil_to_tensor(F.center_crop(resized, [crop_size])).numpy()
    got = pixels(image, preset)
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    assert np.array_equal(got, expected)


def test_the_transparent_grey_of_sixteen_bits_lies_on_white():
    values = np.full((4, 4), 63_000, np.uint16)
    values[0, 0] = 1000
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", transparency=1000)
    decoded = decode(file.getvalue())
    assert isinstance(decoded, Image.Image)
    assert decoded.getpixel((0, 0)) == (255, 255, 255)
    assert decoded.getpixel((1, 1)) == (245, 245, 245)


def test_a_strip_that_resizing_would_blow_up_is_refused():
    preset = Preprocessing(4096, 4096, "bilinear", (0.5,) * 3, (0.5,) * 3)
    refused = pixels(Image.new("RGB", (1, 200)), preset)
    assert isinstance(refused, Failure)
    assert refused.status == Status.TOO_LARGE
