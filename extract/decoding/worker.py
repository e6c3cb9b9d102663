"""The program of one worker process: it reads and hashes a file, and leaves its pixels in memory that we share.

A job is a JOB header and the path of a file, or its bytes; an answer an ANSWER header and the reason of a failure, if
it is one. Jobs are answered in order. The process limits itself, so that the kernel ends it even where it is deep in a
decoder's C code: so much CPU time and wall time for an image, so much memory for all. (Where the system is not POSIX
there are no such limits.) It ends when its input does.
"""

import contextlib
import hashlib
import json
import os
import signal
import struct
import sys
import time
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from extract import images
from extract.decoding.jpeg import eligible
from extract.decoding.slots import NoRoomError, Slot
from extract.record import Failure, Record, Status
from extract.sources import read_bytes

READY = b"ready to decode\n"
JOB = struct.Struct("<BBqqQ")
"""The slot; 1 if the bytes of the file follow, and not its path; offset and size of the span in it, or -1; how many
bytes follow."""

ANSWER = struct.Struct("<B32sIIQddI")
"""The status; SHA-256 of the file; height and width, or 0 where it was left as it is, and how many bytes are in the
slot; seconds by the clock to read it, of CPU time to decode it; how many bytes of a reason follow."""

NO_DIGEST = bytes(32)
"""Stands for the SHA-256 of bytes that could not be read."""

MAX_WALL_SECONDS = 300
MAX_MEMORY = 4 << 30
"""Limits of one image beside those in `images`. One of MAX_PIXELS took 1.6 GiB (JPEG) to 3.2 GiB (WebP with alpha)."""

POSIX = os.name == "posix"
LEFT_TO_THE_PARENT = ("SIGINT", "SIGTERM", "SIGHUP")
"""Signals that reach the whole process group: what they are to end, only the parent knows."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker does with each file; without `short_px` a JPEG is decoded in full (see `images.decode`).

    If `leave_jpeg`, those that a device can decode are handed over as they are.
    """

    slots: tuple[int, ...]
    short_px: int | None = None
    leave_jpeg: bool = False


@dataclass(slots=True)
class Answer:
    """What became of one file; see ANSWER."""

    status: int = Status.OK
    reason: str = ""
    digest: bytes = NO_DIGEST
    height: int = 0
    width: int = 0
    n_bytes: int = 0
    read_s: float = 0.0
    decode_s: float = 0.0


def main() -> None:
    """Say READY, then answer jobs by the Orders in the first argument until there are no more."""
    orders = Orders(**json.loads(sys.argv[1]))
    slots = [Slot(descriptor) for descriptor in orders.slots]
    jobs, answers = _private_pipes()
    _listen_to_the_parent_only()
    _limit_memory()
    answers.write(READY)
    answers.flush()
    while len(header := jobs.read(JOB.size)) == JOB.size:
        slot, inline, offset, size, n_bytes = JOB.unpack(header)
        given = jobs.read(n_bytes)
        began = time.perf_counter()
        data = given if inline else read_bytes(_record(given, offset, size), images.MAX_BYTES)
        answer = Answer(read_s=time.perf_counter() - began)
        _answer(answer, data, orders, slots[slot])
        slots[slot].leave()  # or what the next image may take would depend on this one
        _send(answers, answer)


def _record(path: bytes, offset: int, size: int) -> Record:
    return Record("", os.fsdecode(path), span=(offset, size) if offset >= 0 else None)


def _answer(answer: Answer, data: bytes | Failure, orders: Orders, slot: Slot) -> None:
    """Fill in what becomes of a file, and the slot with it."""
    if isinstance(data, Failure):
        answer.status, answer.reason = data.status, data.reason
        return
    began = time.process_time()
    answer.digest = hashlib.sha256(data).digest()
    _limit_time(images.MAX_SECONDS, MAX_WALL_SECONDS)
    try:
        _decode(answer, data, orders, slot)
    except NoRoomError:
        answer.status, answer.reason = Status.KILLED, "the machine has no memory left for its pixels"
    except MemoryError:
        answer.status = Status.TOO_LARGE
        answer.reason = f"decoding it takes more than {MAX_MEMORY >> 30} GiB of memory"
    _limit_time(0, 0)
    answer.decode_s = time.process_time() - began


def _decode(answer: Answer, data: bytes, orders: Orders, slot: Slot) -> None:
    if orders.leave_jpeg and eligible(data):
        slot.room(len(data))[:] = np.frombuffer(data, np.uint8)
        answer.n_bytes = len(data)
        return
    decoded = images.decode(data, short_px=orders.short_px, room=slot.room)
    if isinstance(decoded, Failure):
        answer.status, answer.reason = decoded.status, decoded.reason
        return
    answer.height, answer.width, _ = decoded.shape
    answer.n_bytes = decoded.size
    _put(decoded, slot.room(decoded.size))


def _put(decoded: np.ndarray, room: np.ndarray) -> None:
    """Bring pixels into the slot, unless they were decoded there."""
    if not np.may_share_memory(decoded, room):
        room.reshape(decoded.shape)[:] = decoded
    elif not decoded.flags.c_contiguous:  # turned where it lies
        room.reshape(decoded.shape)[:] = decoded.copy()


def _send(answers: BinaryIO, answer: Answer) -> None:
    reason = answer.reason.encode(errors="replace")
    numbers: tuple[Any, ...] = answer.height, answer.width, answer.n_bytes, answer.read_s, answer.decode_s
    answers.write(ANSWER.pack(answer.status, answer.digest, *numbers, len(reason)) + reason)
    answers.flush()


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Take the standard input and output away from libraries: what they print must not get between the answers."""
    jobs, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nowhere, descriptor)
    return jobs, answers


def _listen_to_the_parent_only() -> None:
    for name in LEFT_TO_THE_PARENT:
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)


def _limit_memory() -> None:
    """Let the kernel refuse memory beyond MAX_MEMORY, and keep a crash from leaving a core file."""
    if not POSIX:
        return
    import resource

    for kind, most in ((resource.RLIMIT_AS, MAX_MEMORY), (resource.RLIMIT_CORE, 0)):
        soft, hard = resource.getrlimit(kind)
        if soft == resource.RLIM_INFINITY or soft > most:
            with contextlib.suppress(OSError, ValueError):  # some systems know the limit and do not set it
                resource.setrlimit(kind, (most, hard))


def _limit_time(cpu_s: float, wall_s: float) -> None:
    """Let the kernel end this process after so much more CPU time or wall time; 0 for never.

    CPU time is what counts, as machines are shared and busy; wall time is for a decoder that waits for ever.
    """
    if POSIX:
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        signal.setitimer(signal.ITIMER_REAL, wall_s)
