import platform
import subprocess
import sys

import pytest

from extract import allocator

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


@pytest.fixture
def fresh():
    allocator.keep_memory.cache_clear()
    yield
    allocator.keep_memory.cache_clear()


def test_an_environment_that_says_no_is_heard(fresh, monkeypatch):
    monkeypatch.setenv(allocator.SWITCH, "0")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: 1 / 0)
    assert not allocator.keep_memory()


@pytest.mark.parametrize("libc", [("", ""), ("musl", "1.2")])
def test_another_c_library_is_left_alone(fresh, monkeypatch, libc):
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: libc)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: 1 / 0)
    assert not allocator.keep_memory()
