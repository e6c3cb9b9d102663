"""The parent's side of the worker processes: jobs in, pixels out, and what the death of a worker says of an image."""

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import Self, cast

import numpy as np

from extract import images
from extract.decoding.ends import cause, ended, why
from extract.decoding.slots import Slot, allow_files, open_slot
from extract.decoding.worker import ANSWER, JOB, NO_DIGEST, READY, Orders
from extract.errors import DecoderError
from extract.record import Failure, Record, Status
from extract.sources import is_a_file, read_bytes

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


@dataclass(slots=True)
class _Job:
    """An image that is not answered yet, and its slot. What is no file is read here, and `given` to the process.

    Then it is bytes, or why there are none; else it is the path.
    """

    slot: int
    record: Record
    inline: bool
    given: bytes | Failure
    read_s: float

    @classmethod
    def of(cls, slot: int, record: Record) -> "_Job":
        """Read what is no file."""
        began, inline = time.perf_counter(), not is_a_file(record)
        given = read_bytes(record, images.MAX_BYTES) if inline else _path(record)
        return cls(slot, record, inline, given, time.perf_counter() - began)

    def digest(self) -> bytes:
        """SHA-256 of a file that a process died of."""
        data = self.given if self.inline else read_bytes(self.record, images.MAX_BYTES)
        return NO_DIGEST if isinstance(data, Failure) else hashlib.sha256(data).digest()


class Decoder:
    """One worker process for one thread: started when it is first needed, and again when it has died.

    Up to SLOTS jobs are submitted ahead, and answered in order. As a context manager it leaves nothing behind.
    """

    def __init__(self, short_px: int | None = None, *, leave_jpeg: bool = False) -> None:
        self._orders = Orders((), short_px, leave_jpeg)
        self._slots: list[Slot] = []
        self._process: Process | None = None
        self._waiting: deque[_Job] = deque()
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
        self._waiting.append(_Job.of(self._next, record))
        self._next = (self._next + 1) % SLOTS
        _ask(cast(Process, process), self._waiting[-1])

    def answer(self) -> Decoded:
        """Wait for the oldest job that is not answered; a process that dies of it is a Failure of its image.

        Raises DecoderError where no process can be started in place of one that died.
        """
        job, process = self._waiting[0], cast(Process, self._process)
        try:
            decoded = _answer(process, job, self._slots[job.slot])
        except (EOFError, OSError):
            decoded = Decoded(job.digest(), why(ended(process)), job.read_s)
            self._process = None
        except BaseException:  # its answer may lie in the pipe: no other image must get it
            self.stop()
            raise
        self._waiting.popleft()
        if self._waiting and self._process is None:
            process = self._running()
            for waiting in self._waiting:
                _ask(process, waiting)
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
            ended(self._process)
        self._process = None
        self._waiting.clear()

    def close(self) -> None:
        """End the process, and give the slots back."""
        self.stop()
        self._slots.clear()
        descriptors, self._orders = self._orders.slots, replace(self._orders, slots=())
        for descriptor in descriptors:
            os.close(descriptor)

    def _running(self) -> Process:
        if self._process and self._process.poll() is not None:
            self.stop()
        if not self._process:
            if self._killed:
                raise DecoderError("the decoder has been ended", remedy="Open another loader")
            self._process = self._started()
            if self._killed:  # while it was started, and nobody saw it yet
                self._process.kill()
            _await_ready(self._process)
        return self._process

    def _started(self) -> Process:
        try:
            while len(self._slots) < SLOTS:
                self._orders = replace(self._orders, slots=(*self._orders.slots, open_slot()))
                self._slots.append(Slot(self._orders.slots[-1]))
            return _started(self._orders)
        except OSError as error:
            said = f"no process can be started to decode images ({error.strerror})"
            raise DecoderError(
                said, where=sys.executable, remedy="Check that it runs, or take fewer --workers"
            ) from error


def allow_decoders(n: int) -> None:
    """Make room for the files of so many decoders: two for each slot, and three for the pipes as one is started."""
    allow_files(n * (2 * SLOTS + 3))


def _path(record: Record) -> bytes | Failure:
    try:
        return os.fsencode(record.path)
    except ValueError:
        return Failure(Status.MISSING, "not a path that can be opened")


def _started(orders: Orders) -> Process:
    """Start a worker that finds the modules that we find. Its `-P` keeps a json.py where we stand from being run."""
    command = [sys.executable, "-P", "-c", PROGRAM, json.dumps(sys.path), json.dumps(asdict(orders))]
    pipe = subprocess.PIPE
    return subprocess.Popen(  # noqa: S603 our own program
        command,
        stdin=pipe,
        stdout=pipe,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **FRUGAL},
        pass_fds=orders.slots,
    )


def _await_ready(process: Process) -> None:
    """Wait for the worker's first word; anything before it comes from Python's own start."""
    if not any(line.endswith(READY) for line in _pipes(process)[1]):
        said = f"a process that decodes images ended before it began ({cause(ended(process))})"
        remedy = "See why with: python -c 'import extract.decoding.worker'"
        raise DecoderError(said, where=sys.executable, remedy=remedy)


def _pipes(process: Process) -> tuple[io.BufferedWriter, io.BufferedReader]:
    return cast(io.BufferedWriter, process.stdin), cast(io.BufferedReader, process.stdout)


def _ask(process: Process, job: _Job) -> None:
    """Send one job. A process that has died of the one before does not get it, as `answer` will find out."""
    if isinstance(job.given, Failure):
        return
    jobs, _ = _pipes(process)
    offset, size = job.record.span or (-1, -1)
    with contextlib.suppress(OSError):
        jobs.write(JOB.pack(job.slot, job.inline, offset, size, len(job.given)))
        jobs.write(job.given)
        jobs.flush()


def _answer(process: Process, job: _Job, slot: Slot) -> Decoded:
    """Wait for the answer to one job; raises EOFError or OSError where the process is gone."""
    if isinstance(job.given, Failure):
        return Decoded(NO_DIGEST, job.given, job.read_s)
    _, answers = _pipes(process)
    status, digest, height, width, n_bytes, read_s, decode_s, n_reason = ANSWER.unpack(_read(answers, ANSWER.size))
    read_s += job.read_s
    if status != Status.OK:
        return Decoded(digest, Failure(status, _read(answers, n_reason).decode()), read_s, decode_s)
    values = slot.bytes(n_bytes)
    return Decoded(digest, values.reshape(height, width, 3) if height else values, read_s, decode_s)


def _read(answers: io.BufferedReader, n_bytes: int) -> bytes:
    data = answers.read(n_bytes)
    if len(data) < n_bytes:
        raise EOFError
    return data
