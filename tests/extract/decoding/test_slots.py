import gc
import mmap
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from extract.decoding import slots
from extract.decoding.slots import FILES, KEPT_BYTES, NoRoomError, Slot, allow_files, open_slot

ROOT = Path(__file__).parents[3]


@pytest.fixture
def descriptor() -> Iterator[int]:
    opened = open_slot()
    yield opened
    os.close(opened)


def write(slot: Slot, n_bytes: int, value: int) -> None:
    room = slot.room(n_bytes)
    assert (room.shape, room.dtype) == ((n_bytes,), np.uint8)
    room[:] = value


def test_what_one_side_writes_the_other_reads(descriptor):
    one, other = Slot(descriptor), Slot(descriptor)
    for n_bytes, value in ((10, 1), (4, 2), (5000, 3), (1, 4)):
        write(one, n_bytes, value)
        read = other.bytes(n_bytes)
        assert read.shape == (n_bytes,)
        assert (read == value).all()


def test_a_slot_grows_and_what_was_mapped_before_is_mapped_again(descriptor):
    one, other = Slot(descriptor), Slot(descriptor)
    write(one, 10, 1)
    before = other.bytes(10)
    write(one, 1 << 20, 2)
    assert (other.bytes(1 << 20) == 2).all()
    assert (before == 2).all(), "the same memory"


def test_a_slot_keeps_room_for_photos_and_gives_back_that_of_a_giant(descriptor):
    one, other = Slot(descriptor), Slot(descriptor)
    write(one, KEPT_BYTES + 1, 1)
    assert (other.bytes(KEPT_BYTES + 1)[[0, -1]] == 1).all()
    write(one, KEPT_BYTES, 2)
    assert os.fstat(descriptor).st_size == KEPT_BYTES
    write(one, 9, 3)
    assert os.fstat(descriptor).st_size == KEPT_BYTES
    assert (other.bytes(9) == 3).all()
    write(one, KEPT_BYTES + 2, 4)
    assert (other.bytes(KEPT_BYTES + 2)[[0, -1]] == 4).all()


def test_addresses_of_a_giant_are_given_back_and_those_of_a_photo_are_not(descriptor):
    slot = Slot(descriptor)
    slot.leave()
    write(slot, KEPT_BYTES, 1)
    slot.leave()
    assert slot._mapped is not None
    write(slot, KEPT_BYTES + 1, 1)
    slot.leave()
    assert slot._mapped is None
    assert slot.bytes(1) == [1]


def test_memory_that_the_machine_does_not_have_is_an_error_of_its_own(descriptor, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(slots.os, "posix_fallocate", full)
    with pytest.raises(NoRoomError):
        Slot(descriptor).room(10)


def test_memory_that_this_process_may_not_take_is_a_memory_error(descriptor, monkeypatch):
    def none(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", none)
    with pytest.raises(MemoryError) as caught:
        Slot(descriptor).room(10)
    assert caught.type is MemoryError


def test_memory_is_had_before_it_is_written_to(descriptor):
    Slot(descriptor).room(1 << 20)
    assert os.fstat(descriptor).st_blocks * 512 >= 1 << 20


@pytest.mark.parametrize("missing", [["memfd_create"], ["posix_fallocate"], ["memfd_create", "posix_fallocate"]])
def test_systems_without_one_call_or_the_other_have_slots_too(monkeypatch, missing):
    for name in missing:
        monkeypatch.delattr(os, name)
    descriptor = open_slot()
    write(Slot(descriptor), 5000, 7)
    assert (Slot(descriptor).bytes(5000) == 7).all()
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
def test_nothing_stays_open(monkeypatch):
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    gc.collect()
    before = open_files()
    for attempt in range(2):
        if attempt:
            monkeypatch.delattr(os, "memfd_create")
        descriptor = open_slot()
        slot = Slot(descriptor)
        for n_bytes in (1, 5000, KEPT_BYTES + 1, 3):
            slot.room(n_bytes)
        assert open_files() == before + 2, "the slot, and its mapping"
        del slot
        os.close(descriptor)
        assert open_files() == before


LIMITED = f"""
import resource
from extract.decoding.slots import allow_files
hard = {{hard}}
resource.setrlimit(resource.RLIMIT_NOFILE, ({{soft}}, hard))
allow_files({{more}})
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - {FILES})
"""


def allowed(soft: int, hard: int, more: int) -> int:
    program = LIMITED.format(soft=soft, hard=hard, more=more)
    return int(subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True).stdout)


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2 * FILES, reason="few files may be open here")
def test_more_files_are_allowed_up_to_what_the_system_lets():
    assert allowed(soft=FILES, hard=FILES + 50, more=20) == 20
    assert allowed(soft=FILES, hard=FILES + 50, more=90) == 50
    assert allowed(soft=FILES + 40, hard=FILES + 50, more=20) == 40


def test_where_files_cannot_be_allowed_it_goes_on_as_it_is(monkeypatch):
    def refuse(*_: object) -> None:
        raise ValueError("not allowed")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    allow_files(5)
    monkeypatch.setitem(sys.modules, "resource", None)
    allow_files(5)
