import csv
import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import pipeline
from classify.archive import write_archive
from classify.outputs import Write, writer_of
from tests.tiny_bundle import make_run

QUICK = ("--device", "cpu", "-j", "1")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with `data`, `cache`, `run` and `run.zip`."""
    work = tmp_path_factory.mktemp("predict")
    write_archive(make_run(work, per_class=4) / "bundle", work / "run.zip")
    return work


def run(*args: object, code: int = 0, stdin: bytes = b"") -> Result:
    result = CliRunner().invoke(pipeline.main, [str(arg) for arg in args], input=stdin)
    assert result.exit_code == code, result.output + result.stderr
    return result


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_list_on_stdin_is_answered_line_by_line_bad_paths_included(made, monkeypatch):
    monkeypatch.chdir(made)
    names = ["data/dog/01.jpg", "data/cat/00.png", "gone.png", "data"]
    listed = run("predict", "run", "-", *QUICK, stdin="\n".join(names).encode())
    nul = run("predict", "run.zip", "-", "-0", *QUICK, stdin="\0".join([*names, ""]).encode())
    below = run("predict", "run", "-", "--root", "data", *QUICK, stdin=b"dog/01.jpg\n")
    rows = rows_of(listed.stdout)
    assert [row["id"] for row in rows] == names
    assert [row["status"] for row in rows] == ["ok", "ok", "missing", "missing"]
    assert rows_of(nul.stdout) == rows
    assert rows_of(below.stdout)[0]["label"] == rows[0]["label"]


def test_a_file_has_its_name_once_it_is_whole_and_may_be_gone_on_with(made, tmp_path):
    out, part, beside = (tmp_path / name for name in ("a.csv", "a.csv.part", "a.csv.part.json"))
    run("predict", made / "run", made / "data", "-o", out, "--resume", *QUICK)
    whole = out.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    [said] = run("predict", made / "gone.zip", made / "data", "-o", out, code=1).stderr.splitlines()
    assert "no run of that name" in said
    assert out.read_bytes() == whole
    part.write_bytes(whole[:-20])
    assert "nothing says" in run("predict", made / "run", made / "data", "-o", out, "--resume", *QUICK, code=1).stderr
    digest = json.loads((made / "run" / "bundle" / "bundle.json").read_text())["sha256"]
    said = {"bundle": digest, "format": "csv", "top": 5, "abstain_below": None, "probabilities": False, "head": None}
    beside.write_text(json.dumps(said))
    assert (
        "another top" in run("predict", made / "run", made / "data", "-o", out, "--resume", "--top", 1, code=1).stderr
    )
    again = run("predict", made / "run", made / "data", "-o", out, "--resume", *QUICK)
    assert f"{part} has 7 rows already" in again.stderr
    assert out.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_the_ending_of_the_file_says_the_form(made, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason='needs the extra: pip install "offshelf[parquet]"')
    inputs = (made / "run", made / "data", *QUICK, "--cache", made / "cache", "--probabilities")
    for name in ("a.parquet", "a.jsonl", "a.csv"):
        said = run("predict", *inputs, "-o", tmp_path / name)
        assert "8 of 8 images have their features in" in said.stderr
    table = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    cells = rows_of((tmp_path / "a.csv").read_text())
    assert [row["id"] for row in table] == [row["id"] for row in lines] == [row["id"] for row in cells]
    for row, line, cell in zip(table, lines, cells, strict=True):
        assert row["top"] == line["top"]
        assert line["probabilities"] == {name: row[f"probability:{name}"] for name in ("cat", "dog")}
        assert float(cell["probability:cat"]) == row["probability:cat"]


def test_a_pipe_is_written_to_as_answers_come(made, tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    reader = os.open(tmp_path / "pipe.jsonl", os.O_RDONLY | os.O_NONBLOCK)
    run("predict", made / "run", made / "data", "-o", tmp_path / "pipe.jsonl", *QUICK)
    assert len([json.loads(line) for line in os.read(reader, 1 << 16).splitlines()]) == 8
    os.close(reader)


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="no names for what is open")
def test_what_others_hold_open_is_written_to_and_never_replaced(made, tmp_path):
    with (tmp_path / "held").open("wb") as file:
        run("predict", made / "run", made / "data", "-o", f"/dev/fd/{file.fileno()}", *QUICK)
    assert len(rows_of((tmp_path / "held").read_text())) == 8
    assert [path.name for path in tmp_path.iterdir()] == ["held"]


def test_behind_a_link_the_file_is_written_and_the_link_stays(made, tmp_path):
    (tmp_path / "a.jsonl").symlink_to("there.txt")
    run("predict", made / "run", made / "data", "-o", tmp_path / "a.jsonl", *QUICK)
    assert (tmp_path / "a.jsonl").is_symlink()
    assert len([json.loads(line) for line in (tmp_path / "there.txt").read_text().splitlines()]) == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "there.txt"]


def test_a_full_disk_says_where_and_the_next_run_goes_on(made, tmp_path, monkeypatch):
    out = tmp_path / "a.jsonl"
    command = ("predict", made / "run", made / "data", "-o", out, "--resume", *QUICK)

    def full(*known: Any, **more: Any) -> Write:
        write, room = writer_of(*known, **more), iter(range(3))

        def writes(answer: dict[str, Any]) -> None:
            if next(room, None) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(answer)

        return writes

    with monkeypatch.context() as patched:
        patched.setattr("classify.predict.writer_of", full)
        [said] = run(*command, code=1).stderr.splitlines()
    assert said.startswith(f"Error: {out}.part: cannot write (No space left on device). Make room")
    assert not out.exists()
    assert "has 3 rows already" in run(*command).stderr
    assert len(out.read_text().splitlines()) == 8


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_stream_that_is_full_says_where(made, form):
    result = run("predict", made / "run", made / "data", "-o", "/dev/full", "--format", form, *QUICK, code=1)
    [said] = result.stderr.splitlines()
    assert said.startswith("Error: /dev/full: cannot write (No space left on device). Make room")


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_a_reader_that_has_seen_enough_is_no_error(made, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)

    def gone(*known: Any, **more: Any) -> Write:
        os.close(reader)
        return writer_of(*known, **more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("classify.predict.writer_of", gone)
        result = run("predict", made / "run", made / "data", "-o", tmp_path / "pipe", *QUICK)
    assert result.stderr == ""


def test_a_machine_proves_itself_without_an_image(made):
    assert run("predict", made / "run.zip", "--self-test", *QUICK).stdout.endswith(
        "5 examples on cpu: features and answers are those of the fit\n"
    )
    done = json.loads(run("predict", made / "run", "--self-test", "--json", *QUICK).stdout)
    assert (done["examples"], done["device"]) == (5, "cpu")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ((), 2, "Missing argument 'INPUTS...'"),
        (("{made}/data", "--self-test"), 2, "takes no INPUTS"),
        (("{made}/data", "--format", "parquet"), 1, "Parquet is no stream of text"),
        (("{made}/data", "--resume"), 1, "no file to go on with"),
        (("{made}/data", "--root", "{made}"), 1, "a root means nothing"),
        (("-", "-"), 1, "stdin is named twice"),
        (("{made}/data", "--sklearn-joblib", "{made}/run.zip"), 1, "--trust"),
        (("{made}/data", "--trust"), 1, "no joblib file to be trusted"),
        (("{made}/data", "-o", "{made}/a.csv", "--format", "jsonl"), 1, "the name says csv, and jsonl was asked for"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(made, args, code, said):
    result = run("predict", made / "run", *(arg.format(made=made) for arg in args), code=code)
    assert said in result.stderr
    assert result.stdout == ""


def test_a_fit_writes_a_joblib_head_only_where_asked_and_warns(made, tmp_path):
    where = ("--cache", made / "cache", "--out", tmp_path / "run", "--strategy", "linear", "--cv", 2)
    args = ("fit", "data", "--hold-out", 0.5, *where)
    run(*args)
    assert not (tmp_path / "run" / "head.joblib").exists()
    warned = run(*args, "--sklearn-joblib", "--json")
    assert "Warning: " in warned.stderr
    assert "is a pickle, and only as safe as who gives it to you" in warned.stderr
    json.loads(warned.stdout)
    head = tmp_path / "run" / "head.joblib"
    plain = rows_of(run("predict", tmp_path / "run", made / "data", *QUICK).stdout)
    other = run("predict", tmp_path / "run", made / "data", "--sklearn-joblib", head, "--trust", *QUICK)
    assert [row["label"] for row in rows_of(other.stdout)] == [row["label"] for row in plain]
    run(*args)
    assert not head.exists()
