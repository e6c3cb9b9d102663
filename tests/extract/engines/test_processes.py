import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from extract import job
from extract.engines import processes
from extract.errors import DriftError, EngineError, Interrupted, OffshelfError, StoreError
from extract.forward import Extractor, build_extractor
from extract.progress import Silent
from extract.record import Record
from extract.run import extract
from extract.spec import ExtractSpec
from tests.tiny import assert_same_rows, features_of, rows_in, rows_of, tiny_folder, tiny_spec

pytestmark = pytest.mark.usefixtures("no_thread_left")

ROOT = Path(__file__).parents[3]
IMAGES, SHARD_ROWS = 24, 6


@pytest.fixture
def spec(tmp_path, monkeypatch) -> ExtractSpec:
    """An extraction by two processes, of one image at a time, so that there is something left to do in between."""
    monkeypatch.setattr(job, "SHARD_ROWS", SHARD_ROWS)
    data = tiny_folder(tmp_path / "pets", per_class=IMAGES // 2)
    options = {"device": "cpu,cpu", "batch_size": 1, "compile": "none"}
    return tiny_spec(data, tmp_path / "cache", taps=("penultimate",), **options)


@pytest.fixture
def started(monkeypatch) -> list[subprocess.Popen[str]]:
    """The processes that were started."""
    real, found = processes._started, []
    monkeypatch.setattr(processes, "_started", lambda order: found.append(real(order)) or found[-1])
    return found


class Watcher(Silent):
    """Counts what it hears, and does something once so many rows are done."""

    def __init__(self, at: int = 0, do: Callable[[], object] = lambda: None) -> None:
        self.at, self.do, self.rows = at, do, 0
        self.notes: list[str] = []

    def start(self, what: str, total: int) -> None:
        self.rows = 0 if what == "extract" else -2 * IMAGES

    def advance(self, steps: int, bad: int = 0) -> None:
        self.rows += steps
        if self.rows - steps < self.at <= self.rows:
            self.do()

    def note(self, text: str) -> None:
        self.notes.append(text)


def stored(spec: ExtractSpec) -> int:
    """How many rows are on disk, each in a shard that is whole."""
    return sum(rows_in(path) for path in spec.cache.glob("*/*/shards/*.h5"))


def assert_goes_on(spec: ExtractSpec, kept: int) -> None:
    """The next run, of one process, computes the rest and no more; and all rows are those of one process."""
    done = extract(replace(spec, device="cpu"))
    assert (done["rows"], done["computed"], done["reused"], done["bad"]) == (IMAGES, IMAGES - kept, kept, 0)
    alone = extract(replace(spec, device="cpu", cache=spec.cache.with_name("alone")))
    assert_same_rows(rows_of(features_of(done)), rows_of(features_of(alone)))


def test_two_processes_give_the_rows_of_one_and_add_up(spec, tmp_path, started):
    gc.collect()  # what earlier tests left open
    watcher, files = Watcher(), os.listdir("/proc/self/fd") if Path("/proc/self/fd").exists() else []
    (Path(spec.data) / "cat" / "bad.png").write_bytes(b"words")
    done = extract(replace(spec, profile=tmp_path / "trace.json"), watcher)
    alone = extract(replace(spec, device="cpu", cache=tmp_path / "alone"))
    assert_same_rows(rows_of(features_of(done)), rows_of(features_of(alone)))
    assert {name: done[name] for name in ("computed", "bad")} == {"computed": IMAGES + 1, "bad": 1}
    assert watcher.rows == IMAGES + 1
    assert done["images_per_s"] > 0
    assert sum(done["stages"].values()) == pytest.approx(1, abs=0.01)
    assert [process.returncode for process in started] == [0, 0]
    assert not files or len(os.listdir("/proc/self/fd")) <= len(files)
    traces = [json.loads((tmp_path / f"trace-{i}.json").read_text())["traceEvents"] for i in (0, 1)]
    assert sum(event["args"].get("rows", 0) for trace in traces for event in trace) == IMAGES + 1


def test_a_process_that_is_killed_is_told_and_what_is_done_is_kept(spec, started, monkeypatch):
    def kill() -> None:
        started[0].kill()
        started[0].wait()

    monkeypatch.setattr(processes, "PROGRAM", slow(processes.PROGRAM))
    with pytest.raises(EngineError, match=r"cpu: .* ended too early \(SIGKILL\)\. Run the same command again"):
        extract(spec, Watcher(SHARD_ROWS + 2, kill))
    kept = stored(spec)
    assert 0 < kept < IMAGES
    assert [process.returncode for process in started] == [-9, -9]
    monkeypatch.undo()
    assert_goes_on(spec, kept)


def slow(program: str) -> str:
    """A program that takes its time for each record and for its end, and makes a shard of every row."""
    return program.replace("main(", f"{SLOW}main(")


SLOW = """\
import time
from extract import shard
from extract.engines import worker
from extract.engines.worker import Line
shard.SHARD_S, worker.GRACE_S, check = 0, 600, Line._check
Line._check = lambda line: (time.sleep(0.2), check(line))
"""


def test_ctrl_c_keeps_what_is_done_in_all_processes(spec, started, monkeypatch):
    monkeypatch.setattr(processes, "PROGRAM", slow(processes.PROGRAM))
    with pytest.raises(Interrupted, match=rf"interrupted: \d+ of {IMAGES} rows are kept") as caught:
        extract(spec, Watcher(4, lambda: signal.raise_signal(signal.SIGINT)))
    kept = stored(spec)
    assert caught.value.what == f"interrupted: {kept} of {IMAGES} rows are kept"
    assert 4 <= kept < IMAGES
    assert [process.returncode for process in started] == [130, 130]
    monkeypatch.undo()
    assert_goes_on(spec, kept)


FULL = """\
import errno, os
from extract.store import files
def full(path, data):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
files._write = full
"""
DRIFT = """\
from extract.forward import Extractor
exact = Extractor.exact
Extractor.exact = lambda self, pixels: {tap: 1.01 * rows for tap, rows in exact(self, pixels).items()}
"""


@pytest.mark.parametrize(
    ("patch", "kind", "said"),
    [
        (FULL, StoreError, r"pets/.*: cannot be written .*No space left on device.*Make room"),
        (DRIFT, DriftError, r"golden image .*has another row than the features here.*No row was written"),
    ],
    ids=["full disk", "drift"],
)
def test_an_error_of_ours_comes_out_as_it_is(spec, patch, kind, said, monkeypatch):
    first = extract(
        replace(spec, device="cpu", data=str(tiny_folder(spec.cache.with_name("one"), per_class=1)), name="pets")
    )
    for path in (Path(first["path"]).parent / "shards").iterdir():
        path.unlink()
    monkeypatch.setattr(processes, "PROGRAM", processes.PROGRAM.replace("main(", f"{patch}main("))
    with pytest.raises(kind, match=said) as caught:
        extract(spec)
    assert type(caught.value) is kind
    assert stored(spec) == 0


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return build_extractor(tiny_spec("", Path("cache"), taps=("penultimate",)))


SAY = """\
import json, os, sys, time
order = json.loads(sys.argv[2])
def say(**message):
    os.write(1, json.dumps(message).encode() + b"\\n")
def ask():
    say(next=True)
    return json.loads(sys.stdin.readline() or "null")
"""
"""The beginning of a program that is no worker, and quickly there."""


def run(tmp_path: Path, extractor: Extractor, monkeypatch: Any, program: str, watcher: Watcher) -> list[str]:
    """Let programs of two devices work off five shards of two records each; return the names on their receipts."""
    monkeypatch.setattr(processes, "PROGRAM", SAY + program)
    shards = [[Record(f"{i}a", "a"), Record(f"{i}b", "b", span=(1, 2))] for i in range(5)]
    spec = tiny_spec("", Path("cache"), device="cpu, meta", workers=5, compile="none")
    return [receipt.name for receipt in processes.run(shards, extractor, tmp_path / "shards", spec, watcher)]


RECEIPT = """\
def receipt(name):
    say(receipt=dict(name=name, rows=2, bad=1, stages=dict(seconds=dict(read=1.5)), span=[1, 2], runner="eager"))
"""
WORK = f"""{RECEIPT}
while some := ask():
    for name, path, span in some:
        say(rows=1, bad=int(span == [1, 2]))
    receipt(order["device"] + some[0][0])
    say(note="the same")
say(note=order["device"])
"""


def test_every_shard_is_given_to_one_of_them(tmp_path, extractor, monkeypatch):
    watcher = Watcher()
    names = run(tmp_path, extractor, monkeypatch, WORK, watcher)
    assert sorted(name[-2:] for name in names) == ["0a", "1a", "2a", "3a", "4a"]
    assert watcher.rows == 10
    assert sorted(watcher.notes) == ["cpu", "meta", "the same"], "what both say is said once"


def test_an_order_shares_the_machine_out(tmp_path, extractor):
    shards = [[Record("a", "a")] * 3, [Record("b", "b")] * 2]
    spec = tiny_spec(
        "", Path("c"), device="cpu,cuda:1", workers=5, batch_size=7, compile="none", profile=Path("a/t.json")
    )
    first, second = processes._orders(shards, extractor.recipe, tmp_path, spec)
    assert (first.device, second.device) == ("cpu", "cuda:1")
    assert (first.profile, second.profile) == ("a/t-0.json", "a/t-1.json")
    assert (first.n_images, first.most, first.share, first.workers, first.batch_size) == (3, 3, 2, 2, 7)
    assert replace(second, device="cpu", profile=first.profile) == first


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("sys.exit(3)", r"cpu|meta: .*ended too early \(exit code 3\)"),
        ("raise ValueError('a bug')", r"\(exit code 1\)"),
        ("os.kill(os.getpid(), 9)", r"\(SIGKILL\)"),
        ("ask(); os.write(1, b'{\"rows\": '); os.kill(os.getpid(), 11)", r"\(SIGSEGV\)"),
        ("os.close(0); say(next=True); time.sleep(0.2); sys.exit(4)", r"\(exit code 4\)"),
        ("order['device'] == 'cpu' and sys.exit(5)\ntime.sleep(60)", r"cpu: .*\(exit code 5\)"),
    ],
    ids=["at once", "a bug", "killed", "in the middle of a word", "deaf", "only one"],
)
def test_a_process_that_dies_is_an_error_at_once(tmp_path, extractor, monkeypatch, program, said, capfd):
    began = time.monotonic()
    with pytest.raises(EngineError, match=said):
        run(tmp_path, extractor, monkeypatch, program, Watcher())
    assert time.monotonic() - began < 30, "who sleeps is not waited for"


def test_what_was_said_before_a_death_counts(tmp_path, extractor, monkeypatch):
    heard = tmp_path / "heard"
    dies = f"while not os.path.exists({str(heard)!r}):\n    time.sleep(0.01)\nsys.exit(6)"
    watcher = Watcher(1, heard.touch)
    with pytest.raises(EngineError):
        run(tmp_path, extractor, monkeypatch, WORK.replace('say(note=order["device"])', dies), watcher)
    assert watcher.rows > 0


def test_an_error_of_a_kind_that_is_not_known_is_ours_all_the_same(tmp_path, extractor, monkeypatch):
    program = "say(error=dict(type='OfTomorrow', what='odd', where='here', remedy='Wait'))\nsys.exit(1)"
    with pytest.raises(OffshelfError, match=r"here: odd\. Wait"):
        run(tmp_path, extractor, monkeypatch, program, Watcher())


def test_at_ctrl_c_they_are_told_and_waited_for(tmp_path, extractor, monkeypatch):
    """None of them is given another shard, and what they still have to say is heard."""
    program = f"""{RECEIPT}
ask()
say(rows=1, bad=0)
while sys.stdin.readline():
    pass
receipt("last of " + order["device"])
sys.exit(130)
"""
    monkeypatch.setattr(processes, "PROGRAM", SAY + program)
    spec = tiny_spec("", Path("cache"), device="cpu,meta", compile="none")
    watcher = Watcher(2, lambda: signal.raise_signal(signal.SIGINT))
    receipts, heard = processes.run([[Record("a", "a")]] * 5, extractor, tmp_path / "shards", spec, watcher), []
    with pytest.raises(KeyboardInterrupt):
        heard.extend(receipt.name for receipt in receipts)
    assert sorted(heard) == ["last of cpu", "last of meta"]


def test_an_engine_that_is_left_ends_its_processes(tmp_path, extractor, monkeypatch, started):
    monkeypatch.setattr(processes, "PROGRAM", f"{SAY}{RECEIPT}receipt('one')\ntime.sleep(60)")
    spec = tiny_spec("", Path("cache"), device="cpu,meta", compile="none")
    receipts = processes.run([[Record("a", "a")]], extractor, tmp_path / "shards", spec, Silent())
    assert next(receipts).stages.seconds == {"read": 1.5}
    receipts.close()
    assert [process.returncode for process in started] == [-9, -9]


def test_no_process_that_was_started_is_left_where_another_cannot_be(tmp_path, extractor, monkeypatch, started):
    real = subprocess.Popen

    def once(*given: Any, **named: Any) -> subprocess.Popen[str]:
        if started:
            raise OSError(11, "Resource temporarily unavailable")
        return real(*given, **named)

    monkeypatch.setattr(processes, "PROGRAM", "import time; time.sleep(60)")
    monkeypatch.setattr(processes.subprocess, "Popen", once)
    spec = tiny_spec("", Path("cache"), device="cpu,meta", compile="none")
    with pytest.raises(EngineError, match=r"for meta \(Resource temporarily unavailable\).*fewer devices"):
        next(processes.run([[Record("a", "a")]], extractor, tmp_path / "shards", spec, Silent()))
    assert [process.returncode for process in started] == [-9]


def test_nothing_to_do_starts_nothing(tmp_path, extractor, started):
    spec = tiny_spec("", Path("cache"), device="cpu,cpu")
    assert list(processes.run([], extractor, tmp_path / "shards", spec, Silent())) == []
    assert started == []


# An extraction by two processes that says which they are, and that it has begun, and then waits for its end.
PARENT = """
import sys, time
from pathlib import Path
from extract import run
from extract.engines import processes
from extract.progress import Silent
from tests.tiny import tiny_spec

class Begun(Silent):
    def start(self, what, total):
        self.what = what
    def advance(self, steps, bad=0):
        if self.what == "extract":
            print("begun", flush=True)
            time.sleep(600)

real = processes._started
def started(order):
    process = real(order)
    print(process.pid, flush=True)
    return process
processes._started = started
run.extract(tiny_spec(sys.argv[1], Path(sys.argv[2]), device="cpu,cpu", batch_size=1, compile="none"), Begun())
"""


def alive(sessions: Sequence[int]) -> Iterator[int]:
    """Every process of these sessions that runs."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) in sessions and state != "Z":
            yield int(path.parent.name)


@pytest.mark.fault
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_no_process_outlives_a_parent_that_is_killed(tmp_path):
    data = tiny_folder(tmp_path / "pets", per_class=500)
    command = [sys.executable, "-c", PARENT, str(data), str(tmp_path / "cache")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        sessions = [int(parent.stdout.readline()) for _ in range(2)]
        assert parent.stdout.readline() == "begun\n"
        assert len(list(alive(sessions))) > 2, "they have processes that decode"
        parent.kill()
    deadline = time.monotonic() + 50
    while list(alive(sessions)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not list(alive(sessions))
