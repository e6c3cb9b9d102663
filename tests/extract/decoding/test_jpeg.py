import io
import struct
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from extract import images
from extract.decoding.jpeg import MAX_SEGMENTS, eligible
from tests.tiny import picture

pytestmark = [
    pytest.mark.filterwarnings("ignore:::PIL"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]

SIZE = (72, 65)
ORIENTATION = 0x0112


def encoded(image: Image.Image | None = None, kind: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    (image or picture(1, SIZE)).save(file, kind, **options)
    return file.getvalue()


def segments(data: bytes) -> dict[int, slice]:
    """Where each kind of segment lies, marker and all; of several the last."""
    found, at = {}, 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        found[data[at + 1]] = slice(at, end)
        at = end
    found[0xDA] = slice(at, at + 2 + int.from_bytes(data[at + 2 : at + 4], "big"))
    return found


def changed(data: bytes, marker: int, offset: int, new: bytes) -> bytes:
    """The file with bytes of a segment's content changed."""
    at = segments(data)[marker].start + 4 + offset
    return data[:at] + new + data[at + len(new) :]


def without(data: bytes, marker: int) -> bytes:
    while marker in (found := segments(data)):
        data = data[: found[marker].start] + data[found[marker].stop :]
    return data


def with_segment(data: bytes, marker: int, content: bytes) -> bytes:
    return data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + data[2:]


PLAIN = encoded()
GREY = encoded(picture(1, SIZE).convert("L"))
FRAME, QUANTISATION, HUFFMAN, SCAN = 0xC0, 0xDB, 0xC4, 0xDA


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subsampling": 0},
        {"subsampling": 1},
        {"subsampling": 2},
        {"quality": 100},
        {"optimize": True},
        {"restart_marker_blocks": 1},
        {"comment": b"\xff\xd9 said"},
        {"icc_profile": bytes(200_000)},
    ],
)
def test_plain_files_are_eligible(options):
    assert eligible(encoded(**options))


def test_grey_ones_too():
    assert eligible(GREY)


@pytest.mark.parametrize(
    "data",
    [
        encoded(progressive=True),
        encoded(picture(1, SIZE).convert("CMYK")),
        encoded(keep_rgb=True),
        encoded(picture(1, (63, 200))),
        encoded(kind="PNG"),
        encoded(kind="MPO", save_all=True, append_images=[picture(2, SIZE)]),
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff",
    ],
)
def test_other_kinds_are_not(data):
    assert not eligible(data)


@pytest.mark.parametrize("data", [PLAIN, GREY, encoded(restart_marker_blocks=1)])
def test_no_part_of_a_file_is_eligible(data):
    assert eligible(data)
    assert not any(eligible(data[:end]) for end in range(len(data)))
    assert not eligible(data + b"\0")
    assert not eligible(data + data)


def test_a_file_cut_short_and_ended_is_not():
    end = segments(PLAIN)[SCAN].stop
    assert not eligible(PLAIN[: end + 20] + b"\xff\xd9")


def exif(orientation: int | None = None) -> bytes:
    block = Image.Exif()
    block[0x010E] = "a photo"
    if orientation is not None:
        block[ORIENTATION] = orientation
    return block.tobytes()


def test_what_stands_upright_is_eligible():
    assert eligible(encoded(exif=exif()))
    assert eligible(encoded(exif=exif(orientation=1)))
    big_endian = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, ORIENTATION, 3, 1, 1, 0, 0)
    assert eligible(encoded(exif=big_endian))
    assert not eligible(encoded(exif=big_endian[:-7] + b"\x06" + big_endian[-6:]))


@pytest.mark.parametrize("orientation", [0, 2, 3, 6, 8, 9, 65535])
def test_what_has_to_be_turned_is_not(orientation):
    assert not eligible(encoded(exif=exif(orientation=orientation)))


@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage that is no TIFF header",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0II*\0" + struct.pack("<IHHHII", 8, 1, ORIENTATION, 4, 1, 1),
        b"Exif\0\0II*\0" + struct.pack("<IHHHII", 8, 1, ORIENTATION, 3, 2, 1),
        b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='6'/>",
    ],
)
def test_where_it_cannot_be_told_it_is_not(block):
    assert not eligible(with_segment(PLAIN, 0xE1, block))


def test_two_blocks_of_exif_are_one_too_many():
    assert eligible(with_segment(PLAIN, 0xE1, exif()))
    assert not eligible(with_segment(with_segment(PLAIN, 0xE1, exif()), 0xE1, exif()))


@pytest.mark.parametrize(
    ("height", "width"), [(0, 72), (65, 0), (12_000, 12_000), (65_535, 65_535), (64, 12_801), (12_801, 64)]
)
def test_sizes_are_those_that_may_be_decoded(height, width):
    assert not eligible(changed(PLAIN, FRAME, 1, struct.pack(">HH", height, width)))


def test_the_limit_of_pixels_is_that_of_images(monkeypatch):
    assert eligible(PLAIN)
    monkeypatch.setattr(images, "MAX_PIXELS", SIZE[0] * SIZE[1] - 1)
    assert not eligible(PLAIN)


@pytest.mark.parametrize(
    ("offset", "new"),
    [
        (0, b"\x0c"),  # 12 bits
        (5, b"\x04"),  # components that are not there
        (6, b"R"),  # an RGB file, by its names
        (7, b"\x41"),  # 4:1:1
        (7, b"\x00"),
        (10, b"\x22"),  # chroma as fine as luma, in other words
        (8, b"\x03"),  # a table that is not there
    ],
)
def test_odd_frames_are_not(offset, new):
    assert not eligible(changed(PLAIN, FRAME, offset, new))


def test_grey_with_odd_sampling_is_not():
    assert not eligible(changed(GREY, FRAME, 7, b"\x22"))


@pytest.mark.parametrize(
    ("offset", "new"),
    [(0, b"\x01"), (1, b"\x02"), (2, b"\x22"), (7, b"\x01"), (8, b"\x3e"), (9, b"\x01")],
)
def test_odd_scans_are_not(offset, new):
    assert not eligible(changed(PLAIN, SCAN, offset, new))


@pytest.mark.parametrize("marker", [QUANTISATION, HUFFMAN, FRAME])
def test_every_table_has_to_be_there(marker):
    assert not eligible(without(PLAIN, marker))


def test_two_frames_are_one_too_many():
    frame = PLAIN[segments(PLAIN)[FRAME]]
    assert not eligible(PLAIN[:2] + frame + PLAIN[2:])


@pytest.mark.parametrize(
    ("marker", "offset", "new"),
    [
        (HUFFMAN, 0, b"\x02"),  # a table that baseline files do not have
        (HUFFMAN, 1, b"\x03"),  # three codes of one bit
        (HUFFMAN, 16, b"\xff"),  # more codes than there are
        (QUANTISATION, 0, b"\x10"),  # 16 bits
        (QUANTISATION, 0, b"\x04"),
    ],
)
def test_odd_tables_are_not(marker, offset, new):
    assert not eligible(changed(PLAIN, marker, offset, new))


@pytest.mark.parametrize("marker", [0xC1, 0xC2, 0xC9, 0xCC, 0xDC, 0xDE, 0xD0, 0x01, 0xFF, 0x00])
def test_segments_of_other_processes_are_not(marker):
    assert eligible(with_segment(PLAIN, 0xE5, bytes(4)))
    assert not eligible(with_segment(PLAIN, marker, bytes(4)))


@pytest.mark.parametrize("content", [b"Adobe" + bytes(6) + b"\0", b"Adobe" + bytes(6) + b"\2", b"Adobe\0"])
def test_other_colours_than_ycbcr_are_not(content):
    assert eligible(with_segment(PLAIN, 0xEE, b"Adobe" + bytes(6) + b"\1"))
    assert not eligible(with_segment(PLAIN, 0xEE, content))


@pytest.mark.parametrize("filler", [b"\xff", b"\xff\xe0\0\2", b"\xff\xe0\0\0", b"\xff\xfe\xff\xff", b"\xff\xdb\0\2"])
def test_endless_headers_have_an_end(filler):
    assert not eligible(b"\xff\xd8" + filler * (1 << 20))
    assert not eligible(PLAIN[:2] + filler * MAX_SEGMENTS + PLAIN[2:])


def test_endless_scans_have_one_too():
    scan = segments(PLAIN)[SCAN]
    assert not eligible(PLAIN[: scan.stop] + b"\xff\xff" * (1 << 20))
    assert not eligible(PLAIN[: scan.stop] + b"\xff\0" * (1 << 20))
    assert eligible(PLAIN[: scan.stop] + b"\xff\xd0" * (1 << 20) + b"\xff\xd9")


def head_of(data: bytes) -> tuple[str | None, str, tuple[int, int], int]:
    with Image.open(io.BytesIO(data)) as image:
        return image.format, image.mode, image.size, image.getexif().get(ORIENTATION, 1)


VALID = [PLAIN, GREY, encoded(exif=exif(orientation=1)), encoded(restart_marker_blocks=2), encoded(subsampling=0)]


@settings(max_examples=400)
@given(
    data=st.sampled_from(VALID),
    changes=st.lists(st.tuples(st.integers(0, 800), st.integers(0, 255)), max_size=4),
    cut=st.tuples(st.integers(0, 700), st.integers(0, 40)),
)
def test_of_any_mutation_pillow_thinks_the_same(data, changes, cut):
    mutated = bytearray(data)
    for place, value in changes:
        mutated[place % len(data)] = value
    del mutated[cut[0] : cut[0] + cut[1] // 2]
    if eligible(bytes(mutated)):
        kind, mode, (width, height), orientation = head_of(bytes(mutated))
        assert kind == "JPEG"
        assert mode in ("RGB", "L")
        assert orientation == 1
        assert images.too_large((width, height)) is None


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_have_an_answer(data):
    assert not eligible(data)
    assert not eligible(b"\xff\xd8" + data)
    assert not eligible(PLAIN[: segments(PLAIN)[FRAME].stop] + data)


def test_files_are_told_apart_without_torch():
    code = "import sys, extract.decoding.jpeg; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
