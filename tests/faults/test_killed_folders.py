"""Processes that are killed while they write a folder, and what the next writer makes of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from classify.folders import whole_folder

pytestmark = [pytest.mark.fault, pytest.mark.timeout(60)]

ROOT = Path(__file__).parents[2]

# Fills a folder, and waits for a line before it ends; given "between", it stops after the old folder has gone aside.
WRITER = """
import sys
from pathlib import Path
from classify import folders
folder, when = Path(sys.argv[1]), sys.argv[2]
def wait(*_):
    print("begun", flush=True)
    sys.stdin.readline()
if when == "between":
    folders._fsync = lambda path: None
    rename = Path.rename
    Path.rename = lambda self, to: wait() if self.suffix == ".new" else rename(self, to)
with folders.whole_folder(folder) as temporary:
    (temporary / "file").write_text("by another process")
    if when == "filling":
        wait()
"""


def writer(folder: Path, when: str = "filling") -> subprocess.Popen[str]:
    """Start a process that fills a folder, and wait until it is at the instant asked for."""
    command = [sys.executable, "-c", WRITER, str(folder), when]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    return process


def write(folder: Path, text: str) -> None:
    with whole_folder(folder) as temporary:
        (temporary / "file").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("when", ["filling", "between"])
def test_what_a_killed_writer_left_goes_with_the_next_write_of_the_same_folder(tmp_path, when):
    write(tmp_path / "run", "before")
    write(tmp_path / "run.b", "another run")
    for folder in ("run", "run.b"):
        process = writer(tmp_path / folder, when)
        process.kill()
        process.communicate()
    left = [name for name in names(tmp_path) if name.startswith(".")]
    assert len(left) == (2 if when == "filling" else 4)
    write(tmp_path / "run", "after")
    assert (tmp_path / "run" / "file").read_text() == "after"
    assert [name for name in names(tmp_path) if name.startswith(".")] == [
        name for name in left if name.startswith(".run.b.")
    ]


def test_what_a_living_writer_fills_stays(tmp_path):
    process = writer(tmp_path / "run")
    write(tmp_path / "run", "meanwhile")
    assert (tmp_path / "run" / "file").read_text() == "meanwhile"
    assert len(names(tmp_path)) == 2
    process.communicate("go on\n")
    assert process.returncode == 0
    assert names(tmp_path) == ["run"]
    assert (tmp_path / "run" / "file").read_text() == "by another process"


def test_the_only_copy_of_a_run_stays_until_another_is_whole(tmp_path):
    write(tmp_path / "run", "before")
    process = writer(tmp_path / "run", "between")
    process.kill()
    process.communicate()
    with whole_folder(tmp_path / "run") as temporary:
        [old] = tmp_path.glob(".run.*.old")
        assert (old / "file").read_text() == "before"
        (temporary / "file").write_text("after")
    assert names(tmp_path) == ["run"]
