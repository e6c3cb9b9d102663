"""The parent's side of the worker processes: bytes in, pixels out, and what the death of a worker says of an image."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from typing import TypeVar, cast

import numpy as np

from extract import images
from extract.decoding.worker import ANSWER, JOB, MAX_WALL_SECONDS, PIPE_BYTES, READY
from extract.errors import DecoderError
from extract.spec import Failure, Preprocessing, Status

Buffer = TypeVar("Buffer", bytearray, memoryview)

# A plain program, not `multiprocessing`: that would import the user's script again, or fork a process with threads.
PROGRAM = """\
import json, sys
sys.path[:] = json.loads(sys.argv.pop(1))
from extract.decoding.worker import main
main()
"""

FRUGAL = {
    # NumPy's libraries start a thread per core as they are imported; a worker has no use for them.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc gives memory back after every image and takes it again for the next: 430 page faults, 0.6 ms a photo.
    "MALLOC_TOP_PAD_": str(16 << 20),
}
"""What a worker finds in its environment beside ours."""

GRACE_S = 10
"""How long a worker that has closed its pipes may take to end."""


ENDS = {
    "SIGPROF": Failure(Status.TOO_SLOW, f"decoding took more than {images.MAX_SECONDS} s of CPU time"),
    # The clock goes on where the process is stopped (Ctrl-Z) or the machine overwhelmed.
    "SIGALRM": Failure(Status.KILLED, f"decoding took more than {MAX_WALL_SECONDS} s by the clock"),
    # Most likely the kernel, out of memory that anybody took.
    "SIGKILL": Failure(Status.KILLED, "the decoder was killed (SIGKILL), as when memory runs out"),
}
"""The signals whose sense we know; any other end is a crash."""


class Decoder:
    """One worker process for one thread: started when it is first needed, and again when it has died."""

    def __init__(self, preset: Preprocessing) -> None:
        self._preset = preset
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    def decode(self, data: bytes) -> np.ndarray | Failure:
        """Decode, resize and crop one file; a process that dies of it is a Failure of the image.

        Raises DecoderError where no process can be started.
        """
        process = self._running()
        try:
            return _asked(process, data, self._preset.crop_size)
        except (EOFError, OSError):
            cause = _cause(_ended(process))
            return ENDS.get(cause) or Failure(Status.CRASHED, f"the decoder crashed ({cause})")
        except BaseException:  # its answer may lie in the pipe: no other image must get it
            self.close()
            raise

    def kill(self) -> None:
        """End the process for good, from any thread; one that waits for its answer goes on."""
        self._killed = True
        if process := self._process:
            process.kill()

    def close(self) -> None:
        """End the process and close its pipes, from the thread that decodes."""
        if self._process:
            self._process.kill()
            _ended(self._process)
        self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process and self._process.poll() is not None:
            self.close()
        if not self._process:
            self._process = _started(self._preset)
            if self._killed:  # while it was started, and nobody saw it yet
                self._process.kill()
            _await_ready(self._process)
        return self._process


class Decoders:
    """Decoders for any number of threads: never more of them than were asked at once."""

    def __init__(self, preset: Preprocessing) -> None:
        self._preset = preset
        self._all: list[Decoder] = []
        self._idle: list[Decoder] = []
        self._killed = False

    def decode(self, data: bytes) -> np.ndarray | Failure:
        """Decode one file on a decoder that is idle, else on a new one; see `Decoder.decode`."""
        try:
            decoder = self._idle.pop()
        except IndexError:
            decoder = Decoder(self._preset)
            self._all.append(decoder)
        if self._killed:
            decoder.kill()
        try:
            return decoder.decode(data)
        finally:
            self._idle.append(decoder)

    def kill(self) -> None:
        """End all processes for good, so that every thread that waits for one goes on."""
        self._killed = True
        for decoder in self._all:
            decoder.kill()

    def close(self) -> None:
        """End all processes; for when no thread waits any more."""
        for decoder in self._all:
            decoder.close()


def _started(preset: Preprocessing) -> subprocess.Popen[bytes]:
    """Start a worker that finds the modules that we find. Its `-P` keeps a json.py where we stand from being run."""
    command = [sys.executable, "-P", "-c", PROGRAM, json.dumps(sys.path), json.dumps(asdict(preset))]
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(  # noqa: S603 our own program
            command,
            bufsize=PIPE_BYTES,
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **FRUGAL},
        )
    except OSError as error:
        said = f"no process can be started to decode images ({error.strerror})"
        raise DecoderError(said, where=sys.executable, remedy="Check that it runs, or take fewer --workers") from error
    for end in _pipes(process):
        _widen(end.fileno())
    return process


def _await_ready(process: subprocess.Popen[bytes]) -> None:
    """Wait for the worker's first word; anything before it comes from Python's own start."""
    if not any(line.endswith(READY) for line in _pipes(process)[1]):
        said = f"a process that decodes images ended before it began ({_cause(_ended(process))})"
        remedy = "This says why: python -c 'import extract.decoding.worker'"
        raise DecoderError(said, where=sys.executable, remedy=remedy)


def _pipes(process: subprocess.Popen[bytes]) -> tuple[io.BufferedWriter, io.BufferedReader]:
    return cast(io.BufferedWriter, process.stdin), cast(io.BufferedReader, process.stdout)


def _widen(descriptor: int) -> None:
    """Let the pipe hold a whole image where the system can do that, so that writer and reader wake each other once."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _asked(process: subprocess.Popen[bytes], data: bytes, side: int) -> np.ndarray | Failure:
    """Send one job and wait for the answer; raises EOFError or OSError where the process is gone."""
    jobs, answers = _pipes(process)
    jobs.write(JOB.pack(len(data)))
    jobs.write(data)
    jobs.flush()
    status, n_bytes = ANSWER.unpack(_read(answers, bytearray(ANSWER.size)))
    if status != Status.OK:
        return Failure(status, _read(answers, bytearray(n_bytes)).decode())
    pixels = np.empty((3, side, side), np.uint8)
    _read(answers, pixels.data.cast("B"))
    return pixels


def _read(answers: io.BufferedReader, into: Buffer) -> Buffer:
    if answers.readinto(into) < len(into):
        raise EOFError
    return into


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process that is about to end, and no longer than GRACE_S; close its pipes; return its exit code."""
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
    with contextlib.suppress(OSError), process:  # what it did not take any more cannot be flushed
        pass
    return process.wait()


def _cause(code: int) -> str:
    """Return the name of the signal that ended a process, or its exit code, in words."""
    names = {number.value: number.name for number in signal.Signals}
    return names.get(-code, f"exit code {code}")
