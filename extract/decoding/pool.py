"""The parent's side of the worker processes: jobs in, pixels out, and what the death of a worker says of an image."""

import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from collections import deque
from dataclasses import asdict, dataclass
from typing import Self, cast

import numpy as np

from extract import images
from extract.decoding.slots import Slot, open_slot
from extract.decoding.worker import ANSWER, JOB, MAX_WALL_SECONDS, NO_DIGEST, READY, Orders
from extract.errors import DecoderError
from extract.sources import is_a_file, read_bytes
from extract.spec import Failure, Record, Status

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


Process = subprocess.Popen[bytes]

SLOTS = 3
"""Images that one worker has in hand: one that is being taken, one that is done, one that is being decoded."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of one file: its SHA-256, and a Failure, or pixels (H, W, 3) uint8, or a JPEG left as it is (n,).

    The pixels hold until the next call of the Decoder that gave them. `read_s` is by the clock, `decode_s` CPU time.
    """

    digest: bytes
    outcome: np.ndarray | Failure
    read_s: float = 0.0
    decode_s: float = 0.0


class Decoder:
    """One worker process for one thread: started when it is first needed, and again when it has died.

    Up to SLOTS jobs are submitted ahead, and answered in order. As a context manager it leaves nothing behind.
    """

    def __init__(self, short_px: int | None = None, *, leave_jpeg: bool = False) -> None:
        self._descriptors = [open_slot() for _ in range(SLOTS)]
        self._slots = [Slot(descriptor) for descriptor in self._descriptors]
        self._orders = Orders(tuple(self._descriptors), short_px, leave_jpeg)
        self._process: Process | None = None
        self._waiting: deque[tuple[int, Record]] = deque()
        self._next = 0
        self._killed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def full(self) -> bool:
        """Whether an answer must be taken before the next job."""
        return len(self._waiting) == SLOTS

    def start(self) -> None:
        """Start the process, unless it runs; raises DecoderError where none can be started."""
        self._running()

    def submit(self, record: Record) -> None:
        """Hand over one image; raises DecoderError where no process can be started."""
        process = self._process if self._waiting else self._running()
        self._waiting.append((self._next, record))
        self._next = (self._next + 1) % SLOTS
        with contextlib.suppress(OSError):  # it has died of an image before: `answer` finds out of which
            _ask(cast(Process, process), *self._waiting[-1])

    def answer(self) -> Decoded:
        """Wait for the oldest job that is not answered; a process that dies of it is a Failure of its image.

        Raises DecoderError where no process can be started in place of one that died.
        """
        (slot, record), process = self._waiting[0], cast(Process, self._process)
        try:
            decoded = _answer(process, self._slots[slot])
        except (EOFError, OSError):
            decoded = Decoded(_digest(record), _why(_ended(process)))
            self._process = None
        except BaseException:  # its answer may lie in the pipe: no other image must get it
            self.stop()
            raise
        self._waiting.popleft()
        if self._waiting and self._process is None:
            for waiting in self._waiting:
                _ask(self._running(), *waiting)
        return decoded

    def kill(self) -> None:
        """End the process for good, from any thread; one that waits for its answer goes on."""
        self._killed = True
        if process := self._process:
            process.kill()

    def stop(self) -> None:
        """End the process and forget its jobs, from the thread that decodes; the next job starts another."""
        if self._process:
            self._process.kill()
            _ended(self._process)
        self._process = None
        self._waiting.clear()

    def close(self) -> None:
        """End the process, and give the slots back."""
        self.stop()
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _running(self) -> Process:
        if self._process and self._process.poll() is not None:
            self.stop()
        if not self._process:
            self._process = _started(self._orders)
            if self._killed:  # while it was started, and nobody saw it yet
                self._process.kill()
            _await_ready(self._process)
        return self._process


def _started(orders: Orders) -> Process:
    """Start a worker that finds the modules that we find. Its `-P` keeps a json.py where we stand from being run."""
    command = [sys.executable, "-P", "-c", PROGRAM, json.dumps(sys.path), json.dumps(asdict(orders))]
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(  # noqa: S603 our own program
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **FRUGAL},
            pass_fds=orders.slots,
        )
    except OSError as error:
        said = f"no process can be started to decode images ({error.strerror})"
        raise DecoderError(said, where=sys.executable, remedy="Check that it runs, or take fewer --workers") from error


def _await_ready(process: Process) -> None:
    """Wait for the worker's first word; anything before it comes from Python's own start."""
    if not any(line.endswith(READY) for line in _pipes(process)[1]):
        said = f"a process that decodes images ended before it began ({_cause(_ended(process))})"
        remedy = "This says why: python -c 'import extract.decoding.worker'"
        raise DecoderError(said, where=sys.executable, remedy=remedy)


def _pipes(process: Process) -> tuple[io.BufferedWriter, io.BufferedReader]:
    return cast(io.BufferedWriter, process.stdin), cast(io.BufferedReader, process.stdout)


def _ask(process: Process, slot: int, record: Record) -> None:
    """Send one job; what lies in no file of its own is read here. Raises OSError where the process is gone."""
    jobs, _ = _pipes(process)
    offset, size = record.span or (-1, -1)
    inline = not is_a_file(record)
    given = read_bytes(record, images.MAX_BYTES) if inline else os.fsencode(record.path)
    if isinstance(given, Failure):
        given = b""
    jobs.write(JOB.pack(slot, inline, offset, size, len(given)))
    jobs.write(given)
    jobs.flush()


def _answer(process: Process, slot: Slot) -> Decoded:
    """Wait for the answer to one job; raises EOFError or OSError where the process is gone."""
    _, answers = _pipes(process)
    status, digest, height, width, n_bytes, read_s, decode_s, n_reason = ANSWER.unpack(_read(answers, ANSWER.size))
    if status != Status.OK:
        return Decoded(digest, Failure(status, _read(answers, n_reason).decode()), read_s, decode_s)
    values = slot.bytes(n_bytes)
    return Decoded(digest, values.reshape(height, width, 3) if height else values, read_s, decode_s)


def _read(answers: io.BufferedReader, n_bytes: int) -> bytes:
    data = answers.read(n_bytes)
    if len(data) < n_bytes:
        raise EOFError
    return data


def _digest(record: Record) -> bytes:
    """SHA-256 of a file that a process died of."""
    data = read_bytes(record, images.MAX_BYTES)
    return NO_DIGEST if isinstance(data, Failure) else hashlib.sha256(data).digest()


def _ended(process: Process) -> int:
    """Wait for a process that is about to end, and no longer than GRACE_S; close its pipes; return its exit code."""
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
    with contextlib.suppress(OSError), process:  # what it did not take any more cannot be flushed
        pass
    return process.wait()


def _why(code: int) -> Failure:
    """Say what became of the image that ended a process."""
    cause = _cause(code)
    return ENDS.get(cause) or Failure(Status.CRASHED, f"the decoder crashed ({cause})")


def _cause(code: int) -> str:
    """Return the name of the signal that ended a process, or its exit code, in words."""
    names = {number.value: number.name for number in signal.Signals}
    return names.get(-code, f"exit code {code}")
