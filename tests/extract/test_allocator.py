import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from extract import allocator

ROOT = Path(__file__).parents[2]
ON_GLIBC = platform.libc_ver()[0] == "glibc"

GROW_AND_FREE = """
import resource, sys
import torch
from extract.allocator import keep_memory

torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_memory() and keep_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
ones = [torch.ones(8 << 20) for _ in range(3)]
total = sum(float(values.sum()) for values in ones)
del ones
before = faults()
for _ in range(10):
    total += float(torch.ones(8 << 20).sum())
assert total == 13 * (8 << 20)
print(faults() - before)
"""
"""Page faults of ten arrays of 32 MB, one after the other: 8,192 pages each where the memory is fetched anew."""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", GROW_AND_FREE, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not ON_GLIBC, reason="another C library")
def test_memory_that_is_kept_is_not_fetched_again():
    assert faults("keep") <= 4 * 8192 < 8 * 8192 <= faults("leave")  # as the heap happens to lie, one may not fit


HEAPS = """
import extract
from threading import Thread

def heap_of_a_thread():
    import ctypes
    malloc = ctypes.CDLL(None).malloc
    malloc.restype = ctypes.c_void_p
    found.append(malloc(64))

found, threads = [], [Thread(target=heap_of_a_thread) for _ in range(2)]
for thread in threads:
    thread.start()
    thread.join()
heap = next(line.split()[0] for line in open("/proc/self/maps") if line.rstrip().endswith("[heap]"))
low, high = (int(end, 16) for end in heap.split("-"))
print(all(low <= place < high for place in found))
"""
"""Whether what threads allocate lies in the heap of the process."""
SETTINGS = (allocator.SWITCH, "MALLOC_ARENA_MAX", "GLIBC_TUNABLES")
"""What of the environment has a say in that."""


@pytest.mark.skipif(not ON_GLIBC, reason="another C library")
@pytest.mark.parametrize(("switch", "expected"), [("1", "True"), ("0", "False")])
def test_threads_share_the_heap_of_the_process(switch, expected):
    known = {name: value for name, value in os.environ.items() if name not in SETTINGS} | {allocator.SWITCH: switch}
    command = [sys.executable, "-c", HEAPS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=known)
    assert done.stdout.strip() == expected


def test_the_heap_is_shared_before_anything_is_imported_that_starts_threads():
    seen = "import sys; from extract.allocator import share_heap; "
    seen += "print(share_heap.cache_info().currsize, {'numpy', 'torch'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "1 set()"


@pytest.fixture
def fresh():
    for told in (allocator.share_heap, allocator.keep_memory):
        told.cache_clear()
    yield
    for told in (allocator.share_heap, allocator.keep_memory):
        told.cache_clear()


def test_an_environment_that_says_no_is_heard(fresh, monkeypatch):
    monkeypatch.setenv(allocator.SWITCH, "0")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: 1 / 0)
    assert not allocator.keep_memory()


@pytest.mark.parametrize("libc", [("", ""), ("musl", "1.2")])
def test_another_c_library_is_left_alone(fresh, monkeypatch, libc):
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: libc)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: 1 / 0)
    assert not allocator.keep_memory()
