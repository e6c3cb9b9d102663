"""Ctrl-C at whatever point of a piece of code, one after the other: the tests' stand-in for an impatient user."""

import sys
import time
from collections.abc import Callable
from types import FrameType


class Interrupt:
    """Raises KeyboardInterrupt where Python would at Ctrl-C: as the nth call that a function of the files makes
    returns, or as such a function begins. In the thread that set it, once.
    """

    def __init__(self, files: tuple[str, ...], nth: int) -> None:
        self.files, self.left = files, nth

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename.endswith(self.files):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


def interrupted(work: Callable[[], None], files: tuple[str, ...], nth: int) -> bool:
    """Do some work with an interrupt, and tell whether there was one."""
    trigger = Interrupt(files, nth)
    try:
        sys.setprofile(trigger)
        work()
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(None)
    return trigger.left <= 0


def soon(holds: Callable[[], bool]) -> bool:
    """Wait until something holds; False where it does not within half a minute."""
    deadline = time.monotonic() + 30
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.001)
    return holds()
