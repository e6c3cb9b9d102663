import io
import os
import signal
import sys
import threading

import numpy as np
import pytest

from extract import images
from extract.decoding import pool
from extract.decoding.pool import Decoder, Decoders
from extract.errors import DecoderError
from extract.spec import Failure, Preprocessing, Status
from tests import hostile
from tests.tiny import picture

PRESET = Preprocessing(33, 32, "bilinear", (0.5,) * 3, (0.5,) * 3)


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, "PNG")
    return buffer.getvalue()


def expected(seed: int) -> np.ndarray:
    return images.pixels(images.decode(png(seed)), PRESET)


@pytest.fixture
def decoder():
    decoder = Decoder(PRESET)
    yield decoder
    decoder.close()


@pytest.fixture
def attacked(monkeypatch, decoder) -> Decoder:
    monkeypatch.setattr(pool, "PROGRAM", hostile.PROGRAM)
    return decoder


def test_pixels_are_those_that_images_makes(decoder):
    for seed in range(3):
        decoded = decoder.decode(png(seed))
        assert decoded.dtype == np.uint8
        assert np.array_equal(decoded, expected(seed))


def test_files_and_pixels_far_larger_than_a_pipe_go_through():
    preset = Preprocessing(900, 900, "nearest", (0.5,) * 3, (0.5,) * 3)
    data = png(1) + bytes(3 << 20)
    decoder = Decoder(preset)
    got = decoder.decode(data)
    decoder.close()
    assert np.array_equal(got, images.pixels(images.decode(data), preset))


def test_reasons_are_those_that_images_gives(decoder):
    for data in (b"words", b"", png(1)[:99], "grüße".encode()):
        assert decoder.decode(data) == images.decode(data)
    assert decoder.decode(b"").status == Status.EMPTY


@pytest.mark.parametrize(
    ("attack", "status", "reason"),
    [
        (b"SEGV", Status.CRASHED, "the decoder crashed (SIGSEGV)"),
        (b"ABRT", Status.CRASHED, "the decoder crashed (SIGABRT)"),
        (b"EXIT", Status.CRASHED, "the decoder crashed (exit code 3)"),
        (b"KILL", Status.KILLED, "the decoder was killed (SIGKILL), as when memory runs out"),
        (b"SPIN", Status.TOO_SLOW, "decoding took more than 30 s of CPU time"),
        (b"WAIT", Status.KILLED, "decoding took more than 300 s by the clock"),
        (b"BLOW", Status.TOO_LARGE, "decoding it takes more than 4 GiB of memory"),
    ],
)
def test_an_end_of_the_decoder_is_a_failure_of_its_image_alone(attacked, attack, status, reason):
    decoded = attacked.decode(png(1) + attack)
    assert decoded == Failure(status, reason)
    assert np.array_equal(attacked.decode(png(2)), expected(2))


def test_what_a_library_prints_does_not_get_between_the_answers(attacked):
    for seed in range(3):
        assert np.array_equal(attacked.decode(png(seed) + b"TALK"), expected(seed))


def test_what_python_prints_as_it_starts_does_not_matter(monkeypatch, decoder):
    monkeypatch.setattr(pool, "PROGRAM", "print('hello')\nprint('half a line', end='', flush=True)\n" + pool.PROGRAM)
    assert np.array_equal(decoder.decode(png(1)), expected(1))


def test_a_process_that_died_between_two_images_costs_none(decoder):
    decoder.decode(png(1))
    os.kill(decoder._process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, decoder._process.pid, os.WEXITED | os.WNOWAIT)
    assert np.array_equal(decoder.decode(png(2)), expected(2))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_group_is_the_parents_matter(decoder, number):
    decoder.decode(png(1))
    process = decoder._process
    process.send_signal(number)
    assert np.array_equal(decoder.decode(png(2)), expected(2))
    assert decoder._process is process


def test_an_answer_that_was_not_taken_goes_to_no_other_image(monkeypatch, decoder):
    def interrupted(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(pool.np, "empty", interrupted)
        with pytest.raises(MemoryError):
            decoder.decode(png(1))
    assert np.array_equal(decoder.decode(png(2)), expected(2))


@pytest.mark.parametrize("program", ["raise SystemExit(4)", "import os; os.kill(os.getpid(), 9)"])
def test_a_process_that_does_not_begin_is_an_error_of_the_machine(monkeypatch, decoder, program):
    monkeypatch.setattr(pool, "PROGRAM", program)
    with pytest.raises(DecoderError, match=r"ended before it began \((exit code 4|SIGKILL)\).*This says why"):
        decoder.decode(png(1))


def test_a_python_that_cannot_be_run_is_an_error_of_the_machine(monkeypatch, decoder):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(DecoderError, match="/no/such/python: no process can be started"):
        decoder.decode(png(1))


def test_a_module_where_we_stand_is_not_taken_for_the_systems(monkeypatch, decoder, tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('not the real one')")
    monkeypatch.setattr(sys, "path", [os.path.abspath(path) for path in sys.path])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(decoder.decode(png(1)), expected(1))


def test_threads_share_no_decoder_at_once_and_leave_none_idle():
    decoders = Decoders(PRESET)
    outcomes: dict[int, np.ndarray] = {}

    def work(first: int) -> None:
        for seed in range(first, first + 20):
            outcomes[seed] = decoders.decode(png(seed))

    threads = [threading.Thread(target=work, args=(20 * i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decoders._all) <= 3
    decoders.close()
    assert all(np.array_equal(outcomes[seed], expected(seed)) for seed in range(60))


def test_killing_sets_a_thread_free_that_waits_for_a_decoder(monkeypatch):
    monkeypatch.setattr(pool, "PROGRAM", hostile.PROGRAM.replace("ITIMER_REAL, 0.1", "ITIMER_REAL, 60"))
    decoders = Decoders(PRESET)
    decoders.decode(png(1))
    waiting = threading.Thread(target=decoders.decode, args=(png(1) + b"WAIT",))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    decoders.kill()
    waiting.join(30)
    assert not waiting.is_alive()
    decoders.close()


def test_killing_reaches_a_process_that_is_being_started(monkeypatch, decoder):
    start = pool._started

    def killed(preset: Preprocessing) -> object:
        process = start(preset)
        decoder.kill()
        return process

    monkeypatch.setattr(pool, "_started", killed)
    with pytest.raises(DecoderError, match="SIGKILL"):
        decoder.decode(png(1))
