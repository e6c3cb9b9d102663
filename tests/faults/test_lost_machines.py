"""A machine of a cluster of Ray that is lost in the middle of a shard, and a driver that is killed."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from extract.engines import pool, ray
from extract.engines import session as sessions
from extract.progress import Silent
from extract.run import extract
from tests.extract.engines.shards_of_tiny import ROWS, Quick, tiny_job
from tests.tiny import assert_same_rows, features_of, rows_in, rows_of, tiny_folder, tiny_spec

itself = pytest.importorskip("ray")
pytestmark = pytest.mark.fault

ROOT = Path(__file__).parents[2]
STORE_BYTES = 80 << 20


@pytest.fixture
def cluster(monkeypatch) -> Iterator[Any]:
    """A head without CPUs and two machines with one each, all of them here and heard nowhere else."""
    for name, value in {**sessions.QUIET, **sessions._private()}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(itself._private.ray_constants, "ENABLE_RAY_CLUSTER", False)
    monkeypatch.setattr(itself._private.utils, "write_ray_address", lambda _: None)  # for all of this machine to find
    monkeypatch.setattr(sessions, "_heard_here", lambda *_, **__: nullcontext())
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        try:
            started = machines(folder)
        except Exception:  # on a busy machine Ray's processes may give each other up, once
            started = machines(folder)
        yield started
        started.shutdown()


def machines(folder: str) -> Any:
    from ray.cluster_utils import Cluster

    started = Cluster(shutdown_at_exit=False)
    try:
        started.add_node(num_cpus=0, include_dashboard=False, object_store_memory=STORE_BYTES, temp_dir=folder)
        for _ in range(2):
            started.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    except BaseException:
        started.shutdown()
        raise
    return started


def machine_of(node_id: str, cluster: Any) -> Any:
    [socket] = [node["RayletSocketName"] for node in itself.nodes() if node["NodeID"] == node_id]
    [machine] = [each for each in cluster.worker_nodes if each.raylet_socket_name == socket]
    return machine


def lost_actor(folder: Path) -> type[Quick]:
    """Return an actor whose machine is to be lost: `ours` names the driver's, and `flag` that one, once it is there."""
    flag, ours = folder / "flag", folder / "ours"

    class Lost(Quick):
        """Waits in its first shard until its machine is lost, on the first that comes to one.

        That is not the machine which Ray chose for the driver, with which all would be lost: there it waits for that.
        """

        def _until_stopped(self, records):
            machine = itself.get_runtime_context().get_node_id()
            while machine == ours.read_text() and not flag.exists():
                time.sleep(0.05)
            (folder / machine).write_text(machine)
            rest = super()._until_stopped(records)
            yield next(rest)
            with suppress(FileExistsError):
                flag.hardlink_to(folder / machine)
                time.sleep(3600)
            yield from rest

    return Lost


def test_a_machine_that_is_lost_loses_no_row_and_doubles_none(tmp_path, cluster, monkeypatch):
    flag, ours, connect = tmp_path / "flag", tmp_path / "ours", sessions._connect

    def connected(*given: Any) -> None:
        connect(*given)
        ours.write_text(itself.get_runtime_context().get_node_id())

    class Loses(Silent):
        """Loses that machine once another shard is done."""

        rows = 0

        def advance(self, steps: int, bad: int = 0) -> None:
            self.rows += steps
            if self.rows == steps:
                cluster.remove_node(machine_of(flag.read_text(), cluster), allow_graceful=False)

    monkeypatch.setattr(sessions, "_connect", connected)
    monkeypatch.setattr(pool, "Actor", lost_actor(tmp_path))
    job, watcher = tiny_job(tmp_path, address=cluster.address), Loses()
    receipts = list(ray.run(job.shards, job.extractor, job.folder, job.spec, watcher))
    assert len(cluster.worker_nodes) == 1
    assert sorted(receipt.name for receipt in receipts) == sorted(job.made()) == sorted(job.made_locally())
    assert watcher.rows == len(job.shards) * ROWS


# An extraction by Ray, of small shards, that says where Ray has its files, and that a first shard is done, and waits.
DRIVER = f"""
import sys, time
from pathlib import Path
from extract import job, run
from extract.engines import session
from extract.progress import Silent
from extract.spec import EngineSpec
from tests.tiny import tiny_spec

class Begun(Silent):
    def start(self, what, total):
        self.what = what
    def advance(self, steps, bad=0):
        if self.what == "extract":
            print("begun", flush=True)
            time.sleep(3600)

real = session._connect
def connect(ray, engine, folder):
    print(folder, flush=True)
    real(ray, engine, folder)
session._connect = connect
job.SHARD_ROWS = {ROWS}
options = dict(taps=("penultimate",), batch_size=2, compile="none", engine=EngineSpec("ray", actors=2))
run.extract(tiny_spec(sys.argv[1], Path(sys.argv[2]), **options), Begun())
"""
IMAGES = 6 * ROWS


def alive(session: int) -> dict[int, str]:
    """Every process of this session that runs, with its command."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, number = path.read_text().rpartition(")")[2].split()[:4]
            if int(number) == session and state != "Z":
                found[int(path.parent.name)] = (path.parent / "cmdline").read_text()
        except OSError:
            continue
    return found


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_after_a_driver_was_killed_the_next_run_goes_on(tmp_path):
    data, cache = tiny_folder(tmp_path / "pets", per_class=IMAGES // 2), tmp_path / "cache"
    command = [sys.executable, "-c", DRIVER, str(data), str(cache)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as driver:
        assert driver.stdout
        said = driver.stdout.readline().strip()
        assert said, "it ended before it had a folder"
        folder = Path(said)
        try:
            assert driver.stdout.readline() == "begun\n"
            driver.kill()
            driver.wait()
            wait_until(lambda: not any("ray::Actor" in command for command in alive(driver.pid).values()))
        finally:
            for pid in alive(driver.pid):  # agents of Ray linger for a minute
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not alive(driver.pid))
            shutil.rmtree(folder, ignore_errors=True)
    stored = sum(map(rows_in, cache.glob("*/*/shards/*.h5")))
    assert 0 < stored < IMAGES
    options = {"taps": ("penultimate",), "batch_size": 2, "compile": "none"}
    done = extract(tiny_spec(data, cache, **options))
    assert (done["computed"], done["reused"], done["bad"]) == (IMAGES - stored, stored, 0)
    alone = extract(tiny_spec(data, tmp_path / "alone", **options))
    assert_same_rows(rows_of(features_of(done)), rows_of(features_of(alone)))
