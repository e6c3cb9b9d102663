"""A decoder that crashes, hangs or takes all memory costs its image's row; no process outlives the one it works for."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from extract.decoding import NO_DIGEST, pool
from extract.lanes import Stream
from extract.loader import Loaded, Loader, Sight
from extract.record import Failure, Record, Status
from extract.run import extract
from tests import hostile, instant
from tests.instant import Sums
from tests.tiny import put, tiny_folder, tiny_spec

pytestmark = pytest.mark.fault

IMAGES = 60
ROOT = Path(__file__).parents[2]

ENDS = {
    b"SEGV": (Status.CRASHED, "SIGSEGV"),
    b"ABRT": (Status.CRASHED, "SIGABRT"),
    b"KILL": (Status.KILLED, "SIGKILL"),
    b"EXIT": (Status.CRASHED, "exit code 3"),
    b"SPIN": (Status.TOO_SLOW, "CPU time"),
    b"WAIT": (Status.KILLED, "by the clock"),
    b"BLOW": (Status.TOO_LARGE, "memory"),
}
CHOSEN = {row: list(ENDS)[row % len(ENDS)] for row in range(0, IMAGES, 3)}


def loaded(records: list[Record], workers: int = 2) -> tuple[list[Loaded], Tensor]:
    """What becomes of each record, and a row for each: the sums of its pixels."""
    given = instant.extractor()
    with Loader(Sight.of(given.recipe), workers=workers, batch_size=8) as loader:
        made = list(Stream(given, Sums(), loader, lanes=2).run(records))
    return [item for done in made for item in done.items], torch.cat([torch.from_numpy(d.rows["sum"]) for d in made])


def append(path: str, marker: bytes) -> None:
    with Path(path).open("ab") as file:
        file.write(marker)


def test_the_chosen_images_are_bad_and_no_others(tmp_path, monkeypatch):
    records = [Record(str(i), str(put(tmp_path / f"{i}.png", i))) for i in range(IMAGES)]
    _, clean = loaded(records)
    for row, marker in CHOSEN.items():
        append(records[row].path, marker)
    append(records[1].path, b"TALK")
    monkeypatch.setattr(pool, "PROGRAM", hostile.PROGRAM)
    got, rows = loaded(records)
    assert len(CHOSEN) == 20
    assert [i for i, item in enumerate(got) if item.failure] == list(CHOSEN)
    for row, marker in CHOSEN.items():
        status, said = ENDS[marker]
        assert got[row].failure.status == status
        assert said in got[row].failure.reason
        assert got[row].digest == hashlib.sha256(Path(records[row].path).read_bytes()).digest() != NO_DIGEST
        assert rows[row].isnan().all()
    fine = sorted(set(range(IMAGES)) - set(CHOSEN))
    assert rows[fine].equal(clean[fine])


def test_a_stream_that_is_left_does_not_wait_for_a_decoder_that_hangs(tmp_path, monkeypatch):
    for_ever = hostile.PROGRAM.replace("ITIMER_REAL, 0.1", "ITIMER_REAL, 9999").replace("sleep(60)", "sleep(9999)")
    monkeypatch.setattr(pool, "PROGRAM", for_ever)
    records = [Record(str(i), str(put(tmp_path / f"{i}.png", i))) for i in range(20)]
    for record in records[2:]:
        append(record.path, b"WAIT")
    given = instant.extractor()
    with Loader(Sight.of(given.recipe), workers=2, batch_size=2) as loader:
        batches = Stream(given, Sums(), loader, lanes=2).run(records)
        assert next(batches).good.all()
        batches.close()


# A parent that starts decoders, says which processes they are, and then waits with one of them idle, one at work, which
# its image ends after a second.
PARENT = """
import sys, time
from extract.decoding import pool
from extract.record import Record
from tests import hostile

pool.PROGRAM = hostile.PROGRAM.replace("ITIMER_REAL, 0.1", "ITIMER_REAL, 1")
idle, busy = pool.Decoder(), pool.Decoder()
idle.start(), busy.start()
for _ in range(pool.SLOTS):
    busy.submit(Record("", sys.argv[1]))
print(idle._process.pid, busy._process.pid, flush=True)
time.sleep(60)
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for init to notice does not."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_no_worker_outlives_a_parent_that_is_killed(tmp_path):
    (tmp_path / "image").write_bytes(b"WAIT")
    command = [sys.executable, "-c", PARENT, str(tmp_path / "image")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        assert alive(workers[0])
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))


def scan_bomb(side_px: int, scans: int) -> bytes:
    """A small progressive JPEG whose last scan comes again and again; each costs a pass over all of the pixels."""
    file = io.BytesIO()
    Image.new("L", (side_px, side_px), 99).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:last] + data[last:end] * scans + data[end:]


def test_a_bomb_of_scans_ends_with_the_time(tmp_path, monkeypatch):
    bomb = scan_bomb(3000, 3000)
    assert len(bomb) < 1 << 20
    (tmp_path / "bomb.jpg").write_bytes(bomb)
    monkeypatch.setattr(pool, "PROGRAM", hostile.PROGRAM)
    with pool.Decoder() as decoder:
        decoder.submit(Record("bomb", str(tmp_path / "bomb.jpg")))
        outcome = decoder.answer().outcome
    assert isinstance(outcome, Failure)
    assert outcome.status == Status.TOO_SLOW


ONCE = """
import json, os, sys
sys.path[:] = json.loads(sys.argv[1])
from extract import images
real = images.decode

def decode(data, **options):
    if data.endswith(b"ONCE") and not os.path.exists({flag!r}):
        os.mkdir({flag!r})
        os.kill(os.getpid(), {signal})
    return real(data, **options)

images.decode = decode
"""


@pytest.mark.parametrize(("number", "computed_again"), [(signal.SIGSEGV, 0), (signal.SIGKILL, 1)])
def test_a_row_is_computed_again_only_where_the_machine_failed_it(tmp_path, monkeypatch, number, computed_again):
    spec = tiny_spec(tiny_folder(tmp_path / "pets"), tmp_path / "cache")
    append(f"{spec.data}/cat/00.png", b"ONCE")
    once = ONCE.format(flag=str(tmp_path / "flag"), signal=int(number))
    monkeypatch.setattr(pool, "PROGRAM", once + pool.PROGRAM)
    first, second = extract(spec), extract(spec)
    assert (first["bad"], first["computed"]) == (1, 8)
    assert (second["bad"], second["computed"]) == (1 - computed_again, computed_again)
