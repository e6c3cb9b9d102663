import io
import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFile

from extract import images
from extract.images import decode
from extract.record import Failure, Status
from extract.run import extract
from tests.tiny import assert_same_rows, features_of, picture, rows_of, tiny_folder, tiny_spec

pytestmark = [
    pytest.mark.filterwarnings("ignore:::PIL"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]


def encoded(kind: str, **options) -> bytearray:
    buffer = io.BytesIO()
    picture(0).save(buffer, kind, **options)
    return bytearray(buffer.getvalue())


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    parts = [(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)), *chunks, (b"IEND", b"")]
    packed = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def huge_jpeg() -> bytes:
    data = encoded("JPEG")
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">2H", 65_500, 65_500)
    return bytes(data)


def huge_gif() -> bytes:
    data = encoded("GIF")
    place = data.index(b",\0\0\0\0") + 5
    data[6:10] = data[place : place + 4] = struct.pack("<2H", 65_535, 65_535)
    return bytes(data)


def huge_bmp() -> bytes:
    data = encoded("BMP")
    data[18:26] = struct.pack("<2i", 60_000, 60_000)
    return bytes(data)


def huge_tiff() -> bytes:
    data = encoded("TIFF")
    for tag in (256, 257):
        place = data.index(
            struct.pack("<HH", tag, 4) if struct.pack("<HH", tag, 4) in data else struct.pack("<HH", tag, 3)
        )
        data[place : place + 12] = struct.pack("<HHII", tag, 4, 1, 100_000)
    return bytes(data)


def huge_webp() -> bytes:
    canvas = (16_383).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas + bytes(encoded("WEBP", lossless=True)[12:])
    return b"RIFF" + struct.pack("<I", len(body)) + body


BOMBS = {
    "huge.png": png(100_000, 100_000, (b"IDAT", zlib.compress(bytes(10**6)))),
    "huge.jpg": huge_jpeg(),
    "huge.gif": huge_gif(),
    "huge.bmp": huge_bmp(),
    "huge.tif": huge_tiff(),
    "huge.webp": huge_webp(),
    "text bomb.png": png(
        8, 8, (b"zTXt", b"a\0\0" + zlib.compress(bytes(200 << 20), 9)), (b"IDAT", zlib.compress(bytes(200)))
    ),
    "profile bomb.png": png(
        8, 8, (b"iCCP", b"a\0\0" + zlib.compress(bytes(200 << 20), 9)), (b"IDAT", zlib.compress(bytes(200)))
    ),
}


@pytest.mark.parametrize("name", [name for name in BOMBS if name.startswith("huge")])
def test_huge_declared_sizes_are_refused_before_anything_is_decoded(name, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded"))
    if images.simplejpeg is not None:
        monkeypatch.setattr(images.simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("decoded"))
    got = decode(BOMBS[name], room=lambda _: pytest.fail("room was taken"))
    assert isinstance(got, Failure)
    assert got.status in (Status.TOO_LARGE, Status.DAMAGED, Status.NOT_AN_IMAGE)
    if name != "huge.webp":
        assert got.status == Status.TOO_LARGE


@pytest.mark.parametrize("name", [name for name in BOMBS if "bomb" in name])
def test_compressed_metadata_is_not_unpacked_without_a_limit(name, monkeypatch):
    assert len(BOMBS[name]) < 1 << 20
    largest = 0
    unpack = zlib.decompressobj

    class Watched:
        def __init__(self) -> None:
            self.real = unpack()

        def __getattr__(self, attribute: str):
            return getattr(self.real, attribute)

        def decompress(self, *given) -> bytes:
            nonlocal largest
            out = self.real.decompress(*given)
            largest = max(largest, len(out))
            return out

    monkeypatch.setattr(zlib, "decompressobj", Watched)
    assert isinstance(decode(BOMBS[name]), np.ndarray | Failure)
    assert largest <= 64 << 20


def test_more_data_than_declared_does_not_matter():
    data = png(8, 8, (b"IDAT", zlib.compress(bytes(50 << 20), 9)))
    assert isinstance(decode(data), np.ndarray | Failure)


def test_hostile_files_are_rows_with_reasons_and_the_others_stay(tmp_path):
    data = tiny_folder(tmp_path / "pets", per_class=2)
    good = rows_of(features_of(extract(tiny_spec(data, tmp_path / "clean"))))
    for name, content in BOMBS.items():
        (data / "cat" / name).write_bytes(content)
    os.mkfifo(data / "cat/pipe.jpg")
    (data / "cat/folder.jpg").mkdir()
    (data / "cat/zero.png").symlink_to("/dev/zero")
    (data / "cat/null.png").symlink_to("/dev/null")
    (data / "cat/tty.png").symlink_to("/dev/ptmx")
    (data / "cat/loop.png").symlink_to("loop.png")
    with socket.socket(socket.AF_UNIX) as listener:
        bind_short(listener, data / "dog/s.png")
        features = features_of(extract(tiny_spec(data, tmp_path / "cache")))
    status = dict(zip(features.ids, features.status.tolist(), strict=True))
    assert status.keys() == {
        *good,
        *(f"cat/{name}" for name in BOMBS),
        *(f"cat/{name}" for name in ("pipe.jpg", "zero.png", "null.png", "tty.png", "loop.png")),
        "dog/s.png",
    }
    specials = ("cat/pipe.jpg", "cat/zero.png", "cat/null.png", "cat/tty.png", "cat/loop.png", "dog/s.png")
    assert {status[name] for name in specials} == {Status.MISSING}
    rows = rows_of(features)
    assert all(np.isnan(rows[name]).all() == bool(status[name]) for name in rows)
    assert_same_rows({name: rows[name] for name in good}, good)


def bind_short(listener: socket.socket, path: Path) -> None:
    """Bind through the open folder: the path of a socket may have some hundred characters only."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def test_a_link_that_leads_back_to_the_folder_ends(tmp_path):
    data = tiny_folder(tmp_path / "pets", per_class=1)
    (data / "cat/again").symlink_to(data)
    assert features_of(extract(tiny_spec(data, tmp_path / "cache"))).ids == ["cat/00.png", "dog/00.png"]
