"""The allocator: keep the memory of big arrays between one batch and the next.

glibc hands every block of some megabytes back to the kernel as soon as it is free, and the next layer's activations
are zeroed and mapped page by page anew: a fifth to a third of a convolutional network's CPU time.
"""

import ctypes
import os
import platform
from functools import cache

SWITCH = "OFFSHELF_MALLOC"
"""Environment variable: 0 leaves the allocator alone."""

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
SHARED = {M_ARENA_MAX: 1}
"""From mallopt(3): threads have no heaps of their own, which are small and given back all the same."""
KEPT = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1}
"""Blocks of any size come from the heap (an older glibc refuses a threshold above 32 MB), and what is free at its end
stays there."""


@cache  # once in a process
def share_heap() -> bool:
    """Let the threads that start from now on share the heap of the process; tell whether that was done.

    Surely so only where there are no others yet: heaps that threads have had are given to those that start, whatever
    was said meanwhile, and BLAS starts threads as it is imported. It holds, and is done, as `keep_memory` is.
    """
    return _told(SHARED)


@cache
def keep_memory() -> bool:
    """Keep freed memory in this process instead of giving it back to the kernel; tell whether that was done.

    It holds for the whole process and until its end, whoever else allocates in it: the process stays as large as it
    once was. It is done on Linux with glibc only, and not where the environment says OFFSHELF_MALLOC=0.
    """
    return share_heap() and _told(KEPT)


def _told(settings: dict[int, int]) -> bool:
    if os.environ.get(SWITCH) == "0" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    done = [mallopt(name, value) for name, value in settings.items()]
    return all(done)
