"""The program of one worker process: files come in on its standard input, pixels or reasons go out on its output.

A job is a JOB header and the file's bytes; an answer an ANSWER header and the reason, or else the pixels. The process
limits itself, so that the kernel ends it even where it is deep in a decoder's C code: so much CPU time and wall time
for an image, so much memory for all. (Where the system is not POSIX there are no such limits.) It ends when its input
does.
"""

import contextlib
import json
import os
import signal
import struct
import sys
from typing import BinaryIO

import numpy as np

from extract import images
from extract.spec import Failure, Preprocessing, Status

READY = b"ready to decode\n"
JOB = struct.Struct("<Q")
"""The number of bytes of the file."""

ANSWER = struct.Struct("<BI")
"""The status, and the number of bytes that follow."""

PIPE_BYTES = 256 << 10
"""Room for the pixels of one image of 224 x 224; 32 workers with two pipes each stay far below the 64 MiB that Linux
grants the pipes of a user."""

MAX_WALL_SECONDS = 300
MAX_MEMORY = 4 << 30
"""Limits of one image beside those in `images`. One of MAX_PIXELS took 1.6 GiB (JPEG) to 3.2 GiB (WebP with alpha)."""

POSIX = os.name == "posix"
LEFT_TO_THE_PARENT = ("SIGINT", "SIGTERM", "SIGHUP")
"""Signals that reach the whole process group: what they are to end, only the parent knows."""


def main() -> None:
    """Say READY, then answer jobs by the preset in the first argument until there are no more."""
    preset = Preprocessing.from_dict(json.loads(sys.argv[1]))
    jobs, answers = _private_pipes()
    _listen_to_the_parent_only()
    _limit_memory()
    answers.write(READY)
    answers.flush()
    while len(header := jobs.read(JOB.size)) == JOB.size:
        data = jobs.read(*JOB.unpack(header))
        _limit_time(images.MAX_SECONDS, MAX_WALL_SECONDS)
        outcome = _decoded(data, preset)
        _limit_time(0, 0)
        _send(answers, outcome)


def _decoded(data: bytes, preset: Preprocessing) -> np.ndarray | Failure:
    try:
        image = images.decode(data)
        return image if isinstance(image, Failure) else images.pixels(image, preset)
    except MemoryError:
        return Failure(Status.TOO_LARGE, f"decoding it takes more than {MAX_MEMORY >> 30} GiB of memory")


def _send(answers: BinaryIO, outcome: np.ndarray | Failure) -> None:
    if isinstance(outcome, Failure):
        status, body = outcome.status, outcome.reason.encode(errors="replace")
    else:
        status, body = Status.OK, outcome.data
    answers.write(ANSWER.pack(status, len(body) if isinstance(body, bytes) else body.nbytes))
    answers.write(body)
    answers.flush()


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Take the standard input and output away from libraries: what they print must not get between the answers."""
    jobs = os.fdopen(os.dup(0), "rb", buffering=PIPE_BYTES)
    answers = os.fdopen(os.dup(1), "wb", buffering=PIPE_BYTES)
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
