from pathlib import Path

import pytest

from classify.probe import memory
from classify.probe.memory import available_bytes, check_gram, plan_memory
from extract.errors import FitError

GB = 10**9


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MACHINE = {"proc/meminfo": "MemTotal: 3000 kB\nMemFree: 10 kB\nMemAvailable:    2000 kB\n"}
V2 = {
    "proc/self/cgroup": "0::/a/b\n",
    "sys/fs/cgroup/a/b/memory.max": "max\n",
    "sys/fs/cgroup/a/b/memory.current": "900\n",
    "sys/fs/cgroup/a/memory.max": "1000\n",
    "sys/fs/cgroup/a/memory.current": "700\n",
    "sys/fs/cgroup/a/memory.stat": "anon 5\ninactive_file 40\n",
}
V1 = {
    "proc/self/cgroup": "5:cpu:/x\n4:hugetlb,memory:/docker/f00\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "5000\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "4600\n",
    "sys/fs/cgroup/memory/memory.stat": "inactive_file 7\ntotal_inactive_file 60\n",
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (MACHINE, 2000 * 1024),
        (MACHINE | V2, 340),
        (MACHINE | V1, 460),
        (MACHINE | V2 | {"sys/fs/cgroup/a/memory.current": "1200\n"}, 0),
        (MACHINE | V1 | {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 2000 * 1024),
    ],
)
def test_what_is_free_is_the_machines_or_less_in_a_container(tmp_path, files, expected):
    assert available_bytes(put(tmp_path, files)) == expected


def test_a_system_that_tells_nothing_is_not_taken_for_a_large_one(tmp_path, monkeypatch):
    monkeypatch.delattr(memory.os, "sysconf")
    assert available_bytes(tmp_path) == memory.ASSUMED_BYTES


def test_this_machine_has_some_memory_free():
    assert 1 << 20 < available_bytes() < 1 << 50


def test_a_plan_says_what_fits_and_what_is_streamed(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 24 * GB)
    large = plan_memory(1_000_000, 2048, 10, 1)
    assert (large.in_memory, large.room_bytes) == (False, 0)
    assert large.words == "1,000,000 x 2,048 would take 8.2 GB of 24.0 GB free: streamed from the cache"
    small = plan_memory(5000, 512, 10, 50)
    assert (small.in_memory, small.room_bytes) == (True, small.bytes)
    assert small.words == "5,000 x 512 would take 34.8 MB of 24.0 GB free: in memory"
    assert small.bytes >= 5000 * 512 * 4


def test_gram_matrices_go_by_the_smaller_side(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 3 * 100 * 100 * 8)
    check_gram(100, 10**6, 3)
    check_gram(10**6, 100, 3)
    with pytest.raises(FitError, match=r"Gram matrices of 101 x 101 .* Take fewer layers"):
        check_gram(10**6, 101, 3)
