"""How a worker process ended, and what that says of the image that it worked on."""

import contextlib
import signal
import subprocess

from extract import images
from extract.decoding.worker import MAX_WALL_SECONDS
from extract.record import Failure, Status

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


def ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process that is about to end, and no longer than GRACE_S; close its pipes; return its exit code."""
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
    with contextlib.suppress(OSError), process:  # what it did not take any more cannot be flushed
        pass
    return process.wait()


def why(code: int) -> Failure:
    """Say what became of the image that ended a process."""
    name = cause(code)
    return ENDS.get(name) or Failure(Status.CRASHED, f"the decoder crashed ({name})")


def cause(code: int) -> str:
    """Return the name of the signal that ended a process, or its exit code, in words."""
    names = {number.value: number.name for number in signal.Signals}
    return names.get(-code, f"exit code {code}")
