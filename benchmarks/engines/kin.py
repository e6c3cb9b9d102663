"""The processor time of all that a command starts, also of what nobody waits for: Ray's own processes, and its workers.

The harness knows the time of children that were waited for. Ray has others: they carry a mark in their environment,
which every process inherits, and are looked at while they live.
"""

import os
import secrets
import threading
from pathlib import Path
from typing import Self

MARK = "OFFSHELF_BENCHMARK"
LOOK_S = 0.1
"""So often; of a process that ends, what it did since the last look is not seen."""

TICKS = os.sysconf("SC_CLK_TCK")
UTIME, STIME, START = 11, 12, 19
"""Fields of /proc/PID/stat, counted from behind the name (proc(5))."""


class Kin:
    """Counts, while a block runs, what those take that are started in it; one block at a time."""

    def __init__(self) -> None:
        self._mark = f"{MARK}={secrets.token_hex(8)}"
        self._over = threading.Event()
        self._known: dict[tuple[str, str], bool] = {}
        self._seconds: dict[tuple[str, str], float] = {}
        self._waited_s = 0.0
        self._thread = threading.Thread(target=self._watch, name="kin", daemon=True)

    def __enter__(self) -> Self:
        name, _, value = self._mark.partition("=")
        os.environ[name] = value
        self._waited_s = -_waited_s()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._waited_s += _waited_s()
        del os.environ[MARK]

    @property
    def unwaited_s(self) -> float:
        """Processor seconds beyond those of children that were waited for. Both counts miss some; the greater is it."""
        return max(0.0, sum(self._seconds.values()) - self._waited_s)

    def _watch(self) -> None:
        over = False
        while not over:
            over = self._over.wait(LOOK_S)
            for folder in Path("/proc").iterdir():
                if folder.name.isdecimal():
                    self._look(folder)

    def _look(self, folder: Path) -> None:
        try:
            said = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            process = folder.name, said[START]
            if process not in self._known:
                self._known[process] = self._mark.encode() in (folder / "environ").read_bytes().split(b"\0")
        except (OSError, IndexError):  # it has ended, or is somebody else's
            return
        if self._known[process]:
            self._seconds[process] = (int(said[UTIME]) + int(said[STIME])) / TICKS


def _waited_s() -> float:
    """Processor seconds of the children that have ended and were waited for."""
    return sum(os.times()[2:4])
