import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from extract.errors import StoreError
from extract.store import lock
from extract.store.lock import held, holder, lock_of

HOLD = """
import sys
from pathlib import Path
from extract.store.lock import held
with held(Path(sys.argv[1]), wait=False, on_wait=print):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return lock_of(tmp_path / "set" / "0123")


@pytest.fixture
def other(path):
    """Another process that holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def told(text: str) -> None:
    raise AssertionError(text)


def test_a_lock_is_gone_when_its_block_ends(path):
    with held(path, wait=False, on_wait=told):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()
    with held(path, wait=True, on_wait=told):
        pass


def test_who_holds_it_is_told(path, other):
    with (
        pytest.raises(StoreError, match=rf"process {other.pid} on '.+' \(since '20..-.*--wait"),
        held(path, wait=False, on_wait=told),
    ):
        pass
    assert path.exists()


def test_two_threads_of_one_process_exclude_each_other_too(path):
    with (
        held(path, wait=False, on_wait=told),
        pytest.raises(StoreError, match=f"process {os.getpid()} "),
        held(path, wait=False, on_wait=told),
    ):
        pass


def test_waiting_says_for_whom_and_ends_with_the_other(path, other):
    said = []

    def on_wait(text: str) -> None:
        said.append(text)
        threading.Timer(5 * lock.POLL_S, other.stdin.close).start()

    with held(path, wait=True, on_wait=on_wait):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert len(said) == 1
    assert f"waiting for process {other.pid} on" in said[0]


def test_a_lock_whose_process_was_killed_is_free_at_once(path, other, caplog):
    caplog.set_level("INFO")
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert path.exists()
    with held(path, wait=False, on_wait=told):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert f"process {other.pid} on" in caplog.text
    assert "died" in caplog.text


@pytest.mark.parametrize("left", [b"", b"words", b"[]", b"{}", b"\xff\0" * 4000])
def test_whatever_a_lock_says_it_can_be_taken(path, left):
    path.parent.mkdir()
    path.write_bytes(left)
    with held(path, wait=False, on_wait=told):
        pass


def test_many_who_wait_hold_it_one_at_a_time(path, monkeypatch):
    monkeypatch.setattr(lock, "POLL_S", 0.001)
    inside, most, done = 0, 0, []

    def work() -> None:
        nonlocal inside, most
        for _ in range(10):
            with held(path, wait=True, on_wait=lambda _: None):
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                inside -= 1
                done.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, len(done)) == (1, 40)
    assert not path.exists()


def test_those_who_share_it_exclude_who_does_not_and_the_last_one_takes_it_away(path):
    first, second = (held(path, wait=False, on_wait=told, shared=True) for _ in range(2))
    with first:
        with second:
            with pytest.raises(StoreError, match="at work"), held(path, wait=False, on_wait=told):
                pass
            assert "at work" in holder(path)
        assert path.exists()
        assert "at work" in holder(path)
        with pytest.raises(StoreError, match="at work"), held(path, wait=False, on_wait=told):
            pass
    assert not path.exists()
    assert holder(path) == ""


def test_who_holds_it_alone_excludes_those_who_would_share_it(path):
    with (
        held(path, wait=False, on_wait=told),
        pytest.raises(StoreError, match="at work"),
        held(path, wait=False, on_wait=told, shared=True),
    ):
        pass


def test_two_who_look_do_not_take_each_other_for_one_at_work(path):
    path.parent.mkdir()
    path.touch()
    said = []
    threads = [threading.Thread(target=lambda: said.extend(holder(path) for _ in range(50))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == [""] * 100


def test_where_nothing_can_be_written_there_is_no_lock(path, monkeypatch):
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(lock.os, "open", refuse)
    with held(path, wait=False, on_wait=told):
        assert not path.exists()


def test_without_locks_of_the_system_work_goes_on(path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    with held(path, wait=False, on_wait=told):
        assert not path.exists()
