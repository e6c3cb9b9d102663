"""How much memory there is, and whether features are read into it or streamed from the cache."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from extract.errors import FitError

SHARE = 1 / 3
"""Of the free memory that features may take: a pipeline of sklearn holds two more copies of them."""

SOLVER_COPIES = 24
"""Of the coefficients that a solver holds: ten pairs of steps and gradients, and some more."""

ASSUMED_BYTES = 4 << 30
"""Taken to be free where the system does not tell."""

FLOAT32, FLOAT64 = 4, 8
GROUP_FILES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""By version of control groups: what is allowed, what is used, and what of that the system would give back."""


@dataclass(frozen=True)
class MemoryPlan:
    """Whether features fit into memory: what they and the solver take, what is free, and the decision in words."""

    in_memory: bool
    bytes: int
    available: int
    words: str

    @property
    def room_bytes(self) -> int:
        """What `rows.read_rows` may take: 0 where features are streamed."""
        return self.bytes if self.in_memory else 0


def plan_memory(n: int, dims: int, n_classes: int, n_problems: int) -> MemoryPlan:
    """Plan for n rows of `dims` float32, and `n_problems` heads of `n_classes` fitted at a time."""
    features = n * dims * FLOAT32
    needed = features + SOLVER_COPIES * n_problems * n_classes * dims * FLOAT32
    available = available_bytes()
    fits = needed <= SHARE * available
    decided = "in memory" if fits else "streamed from the cache"
    size = f"{n:,} x {dims:,} would take {_gigabytes(needed)} of {_gigabytes(available)} free"
    return MemoryPlan(fits, needed, available, f"{size}: {decided}")


def check_gram(n: int, dims: int, n_matrices: int) -> None:
    """Raise FitError where so many Gram matrices, of the smaller side of (n, D), do not fit into memory."""
    side = min(n, dims)
    needed, available = n_matrices * side * side * FLOAT64, available_bytes()
    if needed > available:
        said = f"Gram matrices of {side:,} x {side:,} would take {_gigabytes(needed)} of {_gigabytes(available)} free"
        raise FitError(said, remedy="Take fewer layers at a time, or pool them further")


def available_bytes(root: Path = Path("/")) -> int:
    """Return how much memory this process may still take: the machine's, or less where its container has a limit."""
    return max(0, min([_free_on_machine(root), *_free_in_groups(root)]))


def _free_on_machine(root: Path) -> int:
    for line in _lines(root / "proc/meminfo"):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # macOS tells the whole only
    except (AttributeError, ValueError, OSError):
        return ASSUMED_BYTES


def _free_in_groups(root: Path) -> Iterator[int]:
    """Yield what each control group above this process leaves it, from its own upwards."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not controllers:
            yield from _free_upwards(root / "sys/fs/cgroup", path, GROUP_FILES[2])
        elif "memory" in controllers.split(","):
            yield from _free_upwards(root / "sys/fs/cgroup/memory", path, GROUP_FILES[1])


def _free_upwards(mount: Path, path: str, names: tuple[str, str, str]) -> Iterator[int]:
    # In a container the path is often that of the host, and only the mount itself is there.
    inner = mount / path.strip("/")
    for folder in (inner, *inner.parents):
        limit, used = (_number(folder / name) for name in names[:2])
        if limit is not None and used is not None:
            yield limit - used + _statistic(folder / "memory.stat", names[2])
        if folder == mount:
            return


def _number(path: Path) -> int | None:
    """Read a file of one number; None where there is none, or no limit ("max")."""
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdecimal() else None


def _statistic(path: Path, name: str) -> int:
    return next((int(line.split()[1]) for line in _lines(path) if line.split()[:1] == [name]), 0)


def _lines(path: Path) -> list[str]:
    """Read a file of the system's; no lines where this system has no such file."""
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 5e7 else f"{n_bytes / 1e6:.1f} MB"
