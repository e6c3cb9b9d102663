"""Sessions of Ray: what is started, what of it others could reach, and what is left of it."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from extract.engines import session as sessions
from extract.engines.session import session
from extract.errors import EngineError
from extract.spec import EngineSpec

ray = pytest.importorskip("ray")

PRIVATE = EngineSpec("ray", actors=1)
LISTENING = "0A"
WITHOUT_TOKENS = ray._raylet.AuthenticationMode.DISABLED


def children(of: int) -> Iterator[int]:
    """Every process below one."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {of}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
        yield from more


def sockets(pid: int) -> Iterator[str]:
    """The numbers of the sockets that a process has open."""
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if (target := os.readlink(link)).startswith("socket:"):
                yield target[len("socket:[") : -1]
    except OSError:
        return


def heard_at(pids: set[int]) -> set[str]:
    """The addresses that these processes listen at, as /proc writes them."""
    own = {number for pid in pids for number in sockets(pid)}
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {line[1].rpartition(":")[0] for line in lines if line[3] == LISTENING and line[9] in own}


LOOPBACKS = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks into /proc")
def test_a_private_session_is_heard_here_alone_and_leaves_nothing(monkeypatch, capfd):
    folders, real = [], sessions._connect
    monkeypatch.setattr(sessions, "_connect", lambda *given: folders.append(given[2]) or real(*given))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # of no account: nobody asked for that cluster
    for name in (sessions.TOKENS, sessions.DEBUGGER):
        monkeypatch.delenv(name, raising=False)
    before, environment = signal.getsignal(signal.SIGTERM), dict(os.environ)
    others = set(children(os.getpid()))  # of what ran before in this process
    monkeypatch.setattr(ray._private.ray_constants, "ENABLE_RAY_CLUSTER", True)
    with session(PRIVATE) as connected:
        assert ray._raylet.get_authentication_mode() != WITHOUT_TOKENS
        pids = set(children(os.getpid())) - others
        addresses = heard_at({os.getpid(), *pids})
        assert connected.cluster_resources()["CPU"] >= 1
        assert signal.getsignal(signal.SIGTERM) is before
        assert Path(folders[-1]).is_dir()
    assert addresses
    assert addresses <= LOOPBACKS
    assert not Path(folders[-1]).exists()
    assert not pids & set(children(os.getpid()))
    assert dict(os.environ) == environment
    assert ray._raylet.get_authentication_mode() == WITHOUT_TOKENS
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of another cluster")
    loader = ray._raylet.AuthenticationTokenLoader.instance()
    assert loader.get_raw_token(ignore_auth_mode=True) == "of another cluster", "the other one is forgotten"
    loader.reset_cache()
    assert ray._private.ray_constants.ENABLE_RAY_CLUSTER
    assert capfd.readouterr().out == ""


def as_ray_train_leaves_it(*_: object) -> None:
    """A handler of Ray's own."""


as_ray_train_leaves_it.__module__ = "ray.train.v2.api.data_parallel_trainer"


def test_a_session_that_is_there_is_taken_and_left(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: pytest.fail("it is not ours"))
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("it is there"))
    before = signal.getsignal(signal.SIGINT)
    with session(PRIVATE) as connected:
        assert connected is ray
        signal.signal(signal.SIGINT, as_ray_train_leaves_it)
    assert signal.getsignal(signal.SIGINT) is before


def test_what_starts_at_the_second_attempt_is_started(monkeypatch):
    asked = []

    def init(**options: object) -> None:
        asked.append(options)
        if len(asked) == 1:
            raise RuntimeError("the machine is busy")

    monkeypatch.setattr(ray, "init", init)
    with session(EngineSpec("ray", actors=64, cpus=1.5)):
        assert os.environ["GLOO_SOCKET_IFNAME"].startswith("lo"), "what trains is heard here alone, too"
    assert len(asked) == 2
    assert {name: asked[1][name] for name in ("address", "num_cpus", "include_dashboard")} == {
        "address": "local",
        "num_cpus": 96,
        "include_dashboard": False,
    }


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        (PRIVATE, r"Ray cannot be started \(no room\)\. .*--engine local"),
        (EngineSpec("ray", address="10.0.0.1:6379"), r"10\.0\.0\.1:6379: no cluster .*\(no room\)\. .*same versions"),
    ],
)
def test_where_nothing_starts_or_answers_that_is_told(monkeypatch, engine, said):
    def init(**_: object) -> None:
        raise ConnectionError("no room\nfor anybody")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(EngineError, match=said), session(engine):
        pass
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_cluster_of_others_is_joined_as_they_would(monkeypatch):
    seen = {}

    def init(**options: object) -> None:
        seen.update(options, loopback=os.environ.get(sessions.LOOPBACK), path=os.environ.get("PYTHONPATH"))

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with session(EngineSpec("ray", address="auto")):
        assert ray._private.ray_constants.ENABLE_RAY_CLUSTER
    assert {name: seen[name] for name in ("address", "loopback", "path")} == {
        "address": "auto",
        "loopback": None,
        "path": None,
    }
    assert "num_cpus" not in seen


def test_without_ray_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(EngineError, match=r'ray is not installed\. Run: pip install "offshelf\[ray\]"'),
        session(PRIVATE),
    ):
        pass
