"""Images that are odd, damaged or hostile, decoders that crash, and images that change behind the cache's back."""

import io
import os
import resource
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.faults.harness import Numbers, most_megabytes, mutated, rows_at, settled, small_spec, warm
from extract import job, run
from extract.decoding import pool
from extract.record import Status
from extract.store import FeatureSet
from tests import hostile
from tests.attacks.test_hostile_images import BOMBS
from tests.attacks.test_hostile_images import png as png_of
from tests.extract.test_images import ORIENTATION, STORED, UPRIGHT, VALID, encoded
from tests.faults import test_decoders
from tests.tiny import features_of, picture, put, rows_of, tiny_folder, tiny_spec

SPECIAL = {"pipe.jpg": "", "zero.png": "/dev/zero", "null.png": "/dev/null", "loop.png": "loop.png", "gone.png": "no"}
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16")
KINDS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "BMP": "bmp", "GIF": "gif", "TIFF": "tif"}


def zoo() -> Iterator[tuple[str, bytes]]:
    """Yield odd files: every mode in every format that takes it, strange sizes, bombs, other formats, no images."""
    yield from BOMBS.items()
    for kind, suffix in KINDS.items():
        for mode in MODES:
            try:
                yield f"{mode.replace(';', '-')}.{suffix}", encoded(_in_mode(mode), kind)
            except (OSError, ValueError, KeyError):
                continue  # a mode that this format does not take
    for name, size in {"pixel": (1, 1), "strip": (5000, 1), "wide": (2000, 10), "large": (3000, 2000)}.items():
        yield f"{name}.png", encoded(Image.new("RGB", size), "PNG")
    for kind in ("PPM", "TGA", "ICO", "PCX", "EPS", "PDF", "ICNS", "SGI"):
        yield f"{kind.lower()}.png", encoded(picture(1, (64, 64)), kind)
    frames = [picture(i) for i in range(3)]
    for kind, suffix in (("GIF", "gif"), ("WEBP", "webp"), ("PNG", "png"), ("TIFF", "tif")):
        yield f"frames.{suffix}", encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    yield "words.jpg", b"these are words\n" * 9
    yield "nothing.jpg", b""
    yield "zeros.png", bytes(1000)
    yield "vector.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    yield "no pixels.png", png_of(0, 0)
    yield "no data.png", png_of(8, 8)
    yield "scans.jpg", test_decoders.scan_bomb(1000, 300)


def _in_mode(mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(picture(1).convert("L")).astype(np.uint16) * 257)
    return picture(1).convert("L").convert(mode) if mode in ("I", "F") else picture(1).convert(mode)


def imagezoo(folder: Path, n: int) -> Numbers:
    """Extract odd, special and damaged files: each is a row, or a bad row with its reason, and no other row suffers."""
    warnings.simplefilter("ignore")  # of Pillow's, as it writes some of them
    data, chance = tiny_folder(folder / "pets", per_class=5), np.random.default_rng(0)
    good = sorted(path.relative_to(data).as_posix() for path in data.glob("*/*"))
    odd = dict(zoo())
    for name, content in odd.items():
        (data / "cat" / name).write_bytes(content)
    for name, target in SPECIAL.items():
        (data / "dog" / name).symlink_to(target) if target else os.mkfifo(data / "dog" / name)
    for number in range(n):
        kind = sorted(VALID)[number % len(VALID)]
        content = mutated(VALID[kind], chance, 16)
        content = content[: int(chance.integers(1, len(content)))] if number % 5 == 0 else content
        (data / "dog" / f"damaged-{number}.{KINDS[kind]}").write_bytes(content)
    seconds = _note_decoding()
    features = features_of(run.extract(small_spec(data, folder / "cache", workers=2, batch_size=32)))
    rows, bad = rows_of(features), features.status != Status.OK
    silent = sum(not features.errors[i] for i in np.flatnonzero(bad))
    wrong = sum(bool(np.isnan(rows[name]).any() != bad[i]) for i, name in enumerate(features.ids))
    lost = sum(bool(np.isnan(rows[name]).any()) for name in good)
    reasons = Counter(Status.NAMES[status] for status in features.status[bad].tolist())
    expected = len(good) + len(odd) + len(SPECIAL) + n
    counted = {
        "n": len(odd) + len(SPECIAL) + n,
        "odd": len(odd) + len(SPECIAL),
        "ok": int((~bad).sum()),
        "bad": int(bad.sum()),
        **{f"bad_as_{name.replace(' ', '_')}": count for name, count in reasons.most_common()},
        "bad_without_reason": silent,
        "rows_unlike_their_status": wrong,
        "good_images_lost": lost,
        "slowest_s": round(max(seconds), 2),
        "mb": round(most_megabytes()),
        "mb_of_a_decoder": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
    }
    whole = counted["ok"] + counted["bad"] == expected == len(features) and not silent + wrong + lost
    return {**counted, "passed": whole and counted["slowest_s"] <= 10 and counted["mb"] < 1024}


def _note_decoding() -> list[float]:
    """Note from here on how long each image is waited for, which is read and decoded in a process."""
    seconds: list[float] = []
    answer = pool.Decoder.answer

    def timed(self: pool.Decoder) -> pool.Decoded:
        began = time.perf_counter()
        decoded = answer(self)
        seconds.append(time.perf_counter() - began)
        return decoded

    pool.Decoder.answer = timed
    return seconds


def _encodings() -> Iterator[tuple[str, bytes]]:
    """Yield one picture in many encodings, and its grey in those that have no colours."""
    upright = Image.fromarray(UPRIGHT)
    grey = upright.convert("L")
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    for orientation, stored in STORED.items():
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        image = Image.fromarray(np.ascontiguousarray(stored))
        yield f"exif {orientation}.jpg", encoded(image, "JPEG", exif=exif, quality=95, subsampling=0)
    yield "cmyk.jpg", encoded(upright.convert("CMYK"), "JPEG", quality=95)
    yield "progressive.jpg", encoded(upright, "JPEG", quality=95, progressive=True)
    yield "palette.png", encoded(upright.quantize(256), "PNG")
    yield "palette.gif", encoded(upright.quantize(256), "GIF")
    yield "alpha.png", encoded(upright.convert("RGBA"), "PNG")
    yield "alpha.webp", encoded(upright.convert("RGBA"), "WEBP", lossless=True)
    yield "plain.bmp", encoded(upright, "BMP")
    yield "plain.tif", encoded(upright, "TIFF")
    yield "grey 16 bits.png", encoded(wide, "PNG")
    yield "grey 16 bits.tif", encoded(wide, "TIFF")
    yield "grey alpha.png", encoded(grey.convert("LA"), "PNG")
    yield "grey as colours.png", encoded(grey.convert("RGB"), "PNG")


def image_meaning(folder: Path) -> Numbers:
    """Extract one picture in many encodings with trained weights, and compare with its plain PNG."""
    data = folder / "flat"
    data.mkdir()
    for name, content in _encodings():
        (data / name).write_bytes(content)
    (data / "plain.png").write_bytes(encoded(Image.fromarray(UPRIGHT), "PNG"))
    (data / "grey.png").write_bytes(encoded(Image.fromarray(UPRIGHT).convert("L"), "PNG"))
    (data / "another.png").write_bytes(encoded(picture(7, (24, 16)), "PNG"))
    rows = rows_of(features_of(run.extract(small_spec(data, folder / "cache", weights="auto"))))
    unit = {name: row / np.linalg.norm(row) for name, row in rows.items()}
    plain = {name: unit["grey.png" if name.startswith("grey") else "plain.png"] for name in rows}
    cosine = {name: float(unit[name] @ plain[name]) for name, _ in _encodings()}
    lowest = min(cosine, key=cosine.__getitem__)
    other = float(unit["another.png"] @ unit["plain.png"])
    counted = {"n": len(cosine), "lowest_cosine": round(cosine[lowest], 5), "of": lowest}
    return {**counted, "cosine_of_another_picture": round(other, 3), "passed": cosine[lowest] >= 0.99 > other}


def decoder_crash(folder: Path) -> Numbers:
    """Extract with decoders that crash, hang, exit or take all memory at twenty images of sixty."""
    data = folder / "flat"
    for row in range(test_decoders.IMAGES):
        put(data / f"{row:02}.png", row)
    clean = rows_of(features_of(run.extract(small_spec(data, folder / "clean"))))
    for row, marker in test_decoders.CHOSEN.items():
        test_decoders.append(str(data / f"{row:02}.png"), marker)
    pool.PROGRAM = hostile.PROGRAM
    began = time.perf_counter()
    features = features_of(run.extract(small_spec(data, folder / "cache", workers=2)))
    took = time.perf_counter() - began
    bad = [int(name.removesuffix(".png")) for name, status in zip(features.ids, features.status, strict=True) if status]
    told = sum(
        test_decoders.ENDS[marker][0] == features.status[row] and test_decoders.ENDS[marker][1] in features.errors[row]
        for row, marker in test_decoders.CHOSEN.items()
    )
    rows = rows_of(features)
    others = [name for name in clean if int(name.removesuffix(".png")) not in test_decoders.CHOSEN]
    right = sum(bool(np.allclose(rows[name], clean[name], rtol=1e-5, atol=1e-6)) for name in others)
    counted = {"n": len(test_decoders.CHOSEN), "images": len(features), "bad": len(bad), "told_by_their_cause": told}
    counted |= {"others_right": right, "run_s": round(took, 1)}
    exact = bad == sorted(test_decoders.CHOSEN) and told == len(bad) and right == len(others)
    return {**counted, "passed": exact}


def sources(folder: Path, n: int) -> Numbers:
    """Change images in place and set their times back: the next run finds each, and so does one that reads all."""
    warm(job.SHARD_ROWS)
    data = settled(tiny_folder(folder / "pets", per_class=n))
    spec = small_spec(data, folder / "cache", batch_size=64)
    run.extract(spec)
    _change_behind(data, n, 10_000)
    first = run.extract(spec)
    _change_behind(data, n, 20_000)
    second = run.extract(replace(spec, rehash=True))
    idle = run.extract(spec)
    clean = rows_at(Path(run.extract(tiny_spec(data, folder / "clean", taps=spec.taps))["path"]))
    rows = rows_of(FeatureSet(Path(idle["path"])))
    right = sum(bool(np.allclose(rows[name], row, rtol=1e-5, atol=1e-6)) for name, row in clean.items())
    counted = {"n": n, "found": first["computed"], "found_with_rehash": second["computed"]}
    counted |= {"found_without_a_change": idle["computed"], "rows_right": right}
    exact = first["computed"] == second["computed"] == n and not idle["computed"]
    return {**counted, "passed": exact and right == 2 * n}


def _change_behind(data: Path, n: int, seed: int) -> None:
    """Write other pictures of the same size in bytes into half of the files; their times of change stay."""
    for number, path in enumerate(sorted(data.glob("cat/*"))[:n]):
        before, size = path.stat(), path.stat().st_size
        file = io.BytesIO()
        picture(seed + number).save(file, path.suffix[1:].replace("jpg", "jpeg"))
        path.write_bytes(file.getvalue().ljust(size, b"\0"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    settled(data)
