import gc
import hashlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract import images
from extract.decoding import pool
from extract.decoding.pool import SLOTS, Decoded, Decoder, allow_decoders
from extract.decoding.slots import KEPT_BYTES
from extract.decoding.worker import NO_DIGEST
from extract.errors import DecoderError
from extract.record import Failure, Record, Status
from tests import hostile
from tests.tiny import picture

ROOT = Path(__file__).parents[3]


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(seed: int) -> bytes:
    return encoded(picture(seed))


def expected(seed: int) -> np.ndarray:
    return np.asarray(picture(seed))


@pytest.fixture
def record(tmp_path) -> Callable[[bytes], Record]:
    """Makes a file of some bytes, and the record of it."""
    count = 0

    def make(data: bytes) -> Record:
        nonlocal count
        count += 1
        path = tmp_path / str(count)
        path.write_bytes(data)
        return Record(path.name, str(path))

    return make


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    with Decoder() as decoder:
        yield decoder


@pytest.fixture
def attacked(monkeypatch, decoder) -> Decoder:
    monkeypatch.setattr(pool, "PROGRAM", hostile.PROGRAM)
    return decoder


def kept(decoded: Decoded) -> Decoded:
    """The answer with pixels of its own."""
    if isinstance(decoded.outcome, Failure):
        return decoded
    return Decoded(decoded.digest, decoded.outcome.copy(), decoded.read_s, decoded.decode_s)


def answers(decoder: Decoder, records: Sequence[Record]) -> list[Decoded]:
    """Decode images as a loader does it: as many ahead as there may be."""
    todo, made = list(records), []
    while len(made) < len(records):
        while todo and not decoder.full:
            decoder.submit(todo.pop(0))
        made.append(kept(decoder.answer()))
    return made


def outcome(decoder: Decoder, record: Record) -> np.ndarray | Failure:
    [answer] = answers(decoder, [record])
    return answer.outcome


def test_pixels_are_those_that_images_makes_and_the_digest_that_of_the_file(decoder, record):
    for kind in ("PNG", "JPEG", "WEBP", "GIF"):
        data = encoded(picture(1), kind)
        [decoded] = answers(decoder, [record(data)])
        made = images.decode(data)
        assert isinstance(decoded.outcome, np.ndarray)
        assert decoded.outcome.dtype == np.uint8
        assert np.array_equal(decoded.outcome, made)
        assert decoded.digest == hashlib.sha256(data).digest()


def test_pixels_that_were_decoded_in_the_slot_and_turned_there_are_upright(decoder, record):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[images.ORIENTATION] = orientation
        data = encoded(picture(orientation), "JPEG", exif=exif)
        assert np.array_equal(outcome(decoder, record(data)), images.decode(data))


def test_answers_come_in_the_order_of_the_jobs(decoder, record):
    listed = [record(png(seed)) for seed in range(10)]
    made = answers(decoder, listed)
    assert all(np.array_equal(decoded.outcome, expected(seed)) for seed, decoded in enumerate(made))


def test_as_many_jobs_are_ahead_as_there_are_slots(decoder, record):
    listed = [record(png(seed)) for seed in range(SLOTS)]
    for each in listed:
        assert not decoder.full
        decoder.submit(each)
    assert decoder.full
    first = decoder.answer()
    assert not decoder.full
    assert np.array_equal(first.outcome, expected(0))


def in_slot(decoder: Decoder, number: int) -> bool:
    """Whether the pixels of an image are in its slot."""
    pixels = expected(number)
    there = os.fstat(decoder._orders.slots[number]).st_size >= pixels.size
    return there and decoder._slots[number].bytes(pixels.size).tobytes() == pixels.tobytes()


def test_pixels_hold_while_the_next_images_are_decoded(decoder, record):
    for seed in range(SLOTS):
        decoder.submit(record(png(seed)))
    first = decoder.answer()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not all(in_slot(decoder, seed) for seed in range(1, SLOTS)):
        time.sleep(0.001)
    assert in_slot(decoder, 1)
    assert np.array_equal(first.outcome, expected(0))


def test_a_span_of_a_file_is_an_image(decoder, record):
    first, second = png(1), png(2)
    whole = record(b"before" + first + second)
    spans = [(6, len(first)), (6 + len(first), len(second)), (6 + len(first), 10**9), (0, 6)]
    one, two, beyond, words = answers(decoder, [Record("", whole.path, span=span) for span in spans])
    assert np.array_equal(one.outcome, expected(1))
    assert np.array_equal(two.outcome, expected(2))
    assert (one.digest, two.digest) == (hashlib.sha256(first).digest(), hashlib.sha256(second).digest())
    assert beyond.outcome.status == Status.TOO_LARGE
    assert words.outcome.status == Status.NOT_AN_IMAGE


def test_what_is_no_file_is_read_here_and_decoded_there(decoder, record, monkeypatch):
    given = {"torchvision:a": png(1), "torchvision:b": Failure(Status.MISSING, "its index is damaged")}
    monkeypatch.setattr(pool, "read_bytes", lambda record, _: given[record.path])
    listed = [Record("", "torchvision:a"), Record("", "torchvision:b"), record(png(2)), Record("", "torchvision:b")]
    one, bad, two, again = answers(decoder, listed)
    assert np.array_equal(one.outcome, expected(1))
    assert one.digest == hashlib.sha256(png(1)).digest()
    assert (bad.outcome, bad.digest) == (given["torchvision:b"], NO_DIGEST)
    assert np.array_equal(two.outcome, expected(2))
    assert again.outcome == bad.outcome


def test_what_is_no_file_may_be_far_larger_than_a_pipe(decoder, monkeypatch):
    data = png(1) + bytes(3 << 20)
    monkeypatch.setattr(pool, "read_bytes", lambda *_: data)
    listed = [Record("", "torchvision:a")] * 5
    assert all(np.array_equal(decoded.outcome, expected(1)) for decoded in answers(decoder, listed))


def test_what_is_no_file_and_ends_its_decoder_has_its_digest(attacked, record, monkeypatch):
    data = png(1) + b"SEGV"
    monkeypatch.setattr(pool, "read_bytes", lambda *_: data)
    [crashed, fine] = answers(attacked, [Record("", "torchvision:a"), record(png(2))])
    assert crashed.outcome.status == Status.CRASHED
    assert crashed.digest == hashlib.sha256(data).digest()
    assert np.array_equal(fine.outcome, expected(2))


def test_reasons_are_those_that_images_and_the_file_system_give(decoder, record, tmp_path):
    for data in (b"words", png(1)[:99], "grüße".encode()):
        assert outcome(decoder, record(data)) == images.decode(data)
    [gone] = answers(decoder, [Record("", str(tmp_path / "gone"))])
    assert gone.outcome == Failure(Status.MISSING, "No such file or directory")
    assert gone.digest == NO_DIGEST
    assert outcome(decoder, record(b"")).status == Status.EMPTY


@pytest.mark.parametrize("path", ["", "with a \0 in it", "\ud800", "x" * 5000])
def test_what_is_no_path_at_all_is_a_failure_of_its_image(decoder, record, path):
    bad, fine = answers(decoder, [Record("", path), record(png(1))])
    assert bad.outcome.status == Status.MISSING
    assert np.array_equal(fine.outcome, expected(1))


def test_a_path_need_not_be_text(decoder, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.png")
    Path(path).write_bytes(png(1))
    assert np.array_equal(outcome(decoder, Record("", path)), expected(1))


def test_a_file_beyond_the_limit_of_bytes_is_not_read(decoder, tmp_path):
    with (tmp_path / "giant").open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)
    giant = Record("", str(tmp_path / "giant"))
    assert outcome(decoder, giant).status == Status.TOO_LARGE


def test_an_image_larger_than_a_slot_keeps_goes_through_and_small_ones_after_it(decoder, record):
    side = int((KEPT_BYTES / 3) ** 0.5) + 2
    giant = record(encoded(Image.new("RGB", (side, side), "red"), "PNG", compress_level=1))
    listed = [record(png(1)), giant, giant, record(png(2)), giant, record(png(3)), record(png(4)), record(png(5))]
    for number, decoded in enumerate(answers(decoder, listed)):
        if listed[number] is giant:
            assert decoded.outcome.shape == (side, side, 3)
            assert (decoded.outcome.reshape(-1, 3)[:: side - 1] == [255, 0, 0]).all()
        else:
            assert np.array_equal(decoded.outcome, images.decode(Path(listed[number].path).read_bytes()))
    held = [os.fstat(descriptor).st_size for descriptor in decoder._orders.slots]
    assert max(held) <= KEPT_BYTES


def test_a_jpeg_comes_smaller_where_it_may(record):
    photo = record(encoded(picture(1, (400, 300)), "JPEG"))
    with Decoder(short_px=100) as decoder:
        assert outcome(decoder, photo).shape == (150, 200, 3)
        assert np.array_equal(outcome(decoder, photo), images.decode(Path(photo.path).read_bytes(), short_px=100))


def test_a_jpeg_that_a_device_can_decode_is_left_as_it_is(record):
    plain, other = encoded(picture(1, (200, 100)), "JPEG"), encoded(picture(1, (200, 100)), "JPEG", progressive=True)
    with Decoder(leave_jpeg=True) as decoder:
        left, decoded, image = answers(decoder, [record(plain), record(other), record(png(1))])
    assert left.outcome.tobytes() == plain
    assert left.outcome.ndim == 1
    assert left.digest == hashlib.sha256(plain).digest()
    assert np.array_equal(decoded.outcome, images.decode(other))
    assert np.array_equal(image.outcome, expected(1))


ENDS = [
    (b"SEGV", Status.CRASHED, "the decoder crashed (SIGSEGV)"),
    (b"ABRT", Status.CRASHED, "the decoder crashed (SIGABRT)"),
    (b"EXIT", Status.CRASHED, "the decoder crashed (exit code 3)"),
    (b"KILL", Status.KILLED, "the decoder was killed (SIGKILL), as when memory runs out"),
    (b"SPIN", Status.TOO_SLOW, "decoding took more than 30 s of CPU time"),
    (b"WAIT", Status.KILLED, "decoding took more than 300 s by the clock"),
    (b"BLOW", Status.TOO_LARGE, "decoding it takes more than 4 GiB of memory"),
]


@pytest.mark.parametrize(("attack", "status", "reason"), ENDS)
def test_an_end_of_the_decoder_is_a_failure_of_its_image_alone(attacked, record, attack, status, reason):
    bad = png(9) + attack
    listed = [record(data) for data in (png(1), bad, png(2), png(3), png(4))]
    made = answers(attacked, listed)
    assert made[1].outcome == Failure(status, reason)
    assert made[1].digest == hashlib.sha256(bad).digest()
    for decoded, seed in zip([made[0], *made[2:]], (1, 2, 3, 4), strict=True):
        assert np.array_equal(decoded.outcome, expected(seed))


def test_one_image_after_the_other_may_end_its_decoder(attacked, record):
    listed = [record(png(seed) + (b"SEGV" if seed % 4 else b"")) for seed in range(12)]
    for seed, decoded in enumerate(answers(attacked, listed)):
        if seed % 4:
            assert decoded.outcome.status == Status.CRASHED
        else:
            assert np.array_equal(decoded.outcome, expected(seed))


def test_a_process_that_dies_while_it_is_asked_again_costs_its_image_only(attacked, record, monkeypatch):
    ask = pool._ask

    def slowly(process: subprocess.Popen[bytes], job: object) -> None:
        ask(process, job)
        if len(attacked._waiting) == 2:  # the new process has got its first job, and dies of it before the second
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    for data in (png(1) + b"SEGV", png(2) + b"EXIT", png(3)):
        attacked.submit(record(data))
    monkeypatch.setattr(pool, "_ask", slowly)
    assert attacked.answer().outcome.status == Status.CRASHED
    assert attacked.answer().outcome == Failure(Status.CRASHED, "the decoder crashed (exit code 3)")
    assert np.array_equal(attacked.answer().outcome, expected(3))


def test_what_a_library_prints_does_not_get_between_the_answers(attacked, record):
    listed = [record(png(seed) + b"TALK") for seed in range(5)]
    assert all(np.array_equal(made.outcome, expected(seed)) for seed, made in enumerate(answers(attacked, listed)))


def test_what_python_prints_as_it_starts_does_not_matter(monkeypatch, decoder, record):
    monkeypatch.setattr(pool, "PROGRAM", "print('hello')\nprint('half a line', end='', flush=True)\n" + pool.PROGRAM)
    assert np.array_equal(outcome(decoder, record(png(1))), expected(1))


def test_a_process_that_died_between_two_images_costs_none(decoder, record):
    outcome(decoder, record(png(1)))
    os.kill(decoder._process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, decoder._process.pid, os.WEXITED | os.WNOWAIT)
    assert np.array_equal(outcome(decoder, record(png(2))), expected(2))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_group_is_the_parents_matter(decoder, record, number):
    outcome(decoder, record(png(1)))
    process = decoder._process
    process.send_signal(number)
    assert np.array_equal(outcome(decoder, record(png(2))), expected(2))
    assert decoder._process is process


def test_an_answer_that_was_not_taken_goes_to_no_other_image(monkeypatch, decoder, record):
    def interrupted(*_: object) -> None:
        raise MemoryError

    decoder.submit(record(png(1)))
    decoder.submit(record(png(2)))
    with monkeypatch.context() as patch:
        patch.setattr(pool.Slot, "bytes", interrupted)
        with pytest.raises(MemoryError):
            decoder.answer()
    assert np.array_equal(outcome(decoder, record(png(3))), expected(3))


@pytest.mark.parametrize("program", ["raise SystemExit(4)", "import os; os.kill(os.getpid(), 9)"])
def test_a_process_that_does_not_begin_is_an_error_of_the_machine(monkeypatch, decoder, record, program):
    monkeypatch.setattr(pool, "PROGRAM", program)
    said = r"ended before it began \((exit code 4|SIGKILL)\).*See why with"
    with pytest.raises(DecoderError, match=said):
        decoder.start()
    with pytest.raises(DecoderError, match=said):
        decoder.submit(record(png(1)))


def test_a_process_that_does_not_begin_again_is_an_error_of_the_machine(monkeypatch, attacked, record):
    attacked.submit(record(png(1) + b"SEGV"))
    attacked.submit(record(png(2)))
    monkeypatch.setattr(pool, "PROGRAM", "raise SystemExit(4)")
    with pytest.raises(DecoderError, match="ended before it began"):
        attacked.answer()


def test_a_python_that_cannot_be_run_is_an_error_of_the_machine(monkeypatch, decoder):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(DecoderError, match="/no/such/python: no process can be started"):
        decoder.start()


def test_a_module_where_we_stand_is_not_taken_for_the_systems(monkeypatch, decoder, record, tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('not the real one')")
    monkeypatch.setattr(sys, "path", [os.path.abspath(path) for path in sys.path])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(outcome(decoder, record(png(1))), expected(1))


def test_killing_sets_a_thread_free_that_waits_for_its_answer(monkeypatch, record):
    monkeypatch.setattr(pool, "PROGRAM", hostile.PROGRAM.replace("ITIMER_REAL, 0.1", "ITIMER_REAL, 60"))
    with Decoder() as decoder:
        decoder.submit(record(png(1) + b"WAIT"))
        made = []
        waiting = threading.Thread(target=lambda: made.append(decoder.answer()))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        decoder.kill()
        waiting.join(30)
        assert made[0].outcome.status == Status.KILLED


def test_killing_is_for_good_and_starts_no_process(attacked, record, monkeypatch):
    attacked.submit(record(png(1) + b"WAIT"))
    attacked.submit(record(png(2)))
    attacked.kill()
    monkeypatch.setattr(pool, "_started", lambda _: pytest.fail("started"))
    with pytest.raises(DecoderError, match="has been ended"):
        attacked.answer()


def test_killing_reaches_a_process_that_is_being_started(monkeypatch, decoder):
    start = pool._started

    def killed(orders: object) -> object:
        process = start(orders)
        decoder.kill()
        return process

    monkeypatch.setattr(pool, "_started", killed)
    with pytest.raises(DecoderError, match="SIGKILL"):
        decoder.start()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
def test_nothing_is_left_behind(attacked, record):
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    gc.collect()  # what earlier tests left open
    before = open_files()
    with Decoder() as decoder:
        answers(decoder, [record(png(1)), record(png(2) + b"SEGV"), record(png(3))])
        process = decoder._process
        assert open_files() > before
    assert process.poll() is not None
    assert open_files() == before
    decoder.close()
    assert open_files() == before


# As many decoders as a large machine has cores, where only so many files may be open as usually may.
MANY = """
import json, os, resource, sys
from extract.decoding import allow_decoders, pool
from extract.errors import DecoderError
from extract.record import Record

soft, n, told = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
if told:
    allow_decoders(n)
decoders = [pool.Decoder() for _ in range(n)]
try:
    for decoder in decoders:
        decoder.start()
    for decoder in decoders:
        for _ in range(pool.SLOTS):
            decoder.submit(Record("", sys.argv[2]))
    made = [decoder.answer().outcome.shape for decoder in decoders for _ in range(pool.SLOTS)]
    print(len(made))
except DecoderError as error:
    print(error)
for decoder in decoders:
    decoder.close()
print(len(os.listdir("/proc/self/fd")))
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1100, reason="few files may be open here")
def test_files_that_may_be_open_suffice_or_it_says_so(record):
    def said(*given: object) -> list[str]:
        command = [sys.executable, "-c", MANY, json.dumps(given), record(png(1)).path]
        return subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.splitlines()

    assert said(12, 2, True) == [str(2 * SLOTS), "4"]
    [error, left] = said(12, 2, False)
    assert "no process can be started to decode images (Too many open files)" in error
    assert "fewer --workers" in error
    assert left == "4"


def test_room_is_made_for_the_files_of_all_decoders(monkeypatch):
    asked = []
    monkeypatch.setattr(pool, "allow_files", asked.append)
    allow_decoders(256)
    assert asked == [256 * 9]
