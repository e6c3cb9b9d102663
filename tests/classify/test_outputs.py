import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from classify import outputs
from classify.answers import CSV_FIELDS, fields_of
from classify.outputs import form_of, parquet_writer, writer_of
from classify.predict import Target
from extract.errors import OptionError

CLASSES = ("cat", "d\udcffog")


def answer(i: int, **known: Any) -> dict[str, Any]:
    shares = {"cat": 0.75, "d\udcffog": 0.25}
    top = [{"label": name, "probability": share} for name, share in shares.items()]
    said = {"id": f"{i}.png", "label": "cat", "probability": 0.75, "abstained": False, "set": ["cat"]}
    rest = {"novelty": 0.5, "known": True, "top": top, "probabilities": shares, "status": "ok", "reason": ""}
    return {**said, **rest, **known}


BAD = {"label": None, "probability": None, "abstained": True, "set": None, "novelty": None, "known": None, "top": []}
BAD |= {"probabilities": None, "status": "missing", "reason": "no file"}


@pytest.mark.parametrize(
    ("form", "path", "expected"),
    [
        (None, None, "csv"),
        (None, "a.csv", "csv"),
        (None, "a.JSONL", "jsonl"),
        (None, "a.ndjson", "jsonl"),
        (None, "a.parquet", "parquet"),
        (None, "a", "csv"),
        (None, "a.json", "jsonl"),
        ("jsonl", "a.txt", "jsonl"),
        ("parquet", "a.PARQUET", "parquet"),
    ],
)
def test_the_form_is_what_was_asked_for_or_what_the_file_says(form, path, expected):
    assert form_of(form, Path(path) if path else None) == expected


@pytest.mark.parametrize(("form", "path"), [("csv", "a.parquet"), ("jsonl", "a.csv"), ("parquet", "a.jsonl")])
def test_a_file_is_not_written_in_another_form_than_its_name_says(form, path):
    with pytest.raises(OptionError, match=rf"{path}: the name says {path[2:]}, and {form} was asked for"):
        form_of(form, Path(path))


def test_a_table_has_a_column_for_each_class_where_all_are_wanted():
    out = io.StringIO()
    write = writer_of("csv", out, CLASSES)
    write(answer(0)), write(answer(1, **BAD))
    good, bad = csv.DictReader(io.StringIO(out.getvalue()))
    assert list(good) == [*CSV_FIELDS, "probability:cat", "probability:d\udcffog"] == fields_of(CLASSES)
    assert (good["probability:cat"], good["probability:d\udcffog"], good["top"]) == (
        "0.75",
        "0.25",
        json.dumps({"cat": 0.75, "d\udcffog": 0.25}),
    )
    assert (bad["probability:cat"], bad["label"], bad["reason"]) == ("", "", "no file")


def test_lines_say_what_was_answered_and_come_out_at_once(tmp_path):
    with (tmp_path / "a.jsonl").open("w", encoding="utf-8") as file:
        write = writer_of("jsonl", file, None)
        write(answer(0))
        assert json.loads((tmp_path / "a.jsonl").read_text()) == answer(0)


@pytest.mark.parametrize("n", [0, 1, 3, 4, 9])
def test_parquet_holds_the_same_in_groups(tmp_path, monkeypatch, n):
    parquet = pytest.importorskip("pyarrow.parquet", reason='needs the extra: pip install "offshelf[parquet]"')
    monkeypatch.setattr(outputs, "GROUP_ROWS", 3)
    with parquet_writer(tmp_path / "a.parquet", CLASSES) as write:
        for i in range(n):
            write(answer(i) if i % 2 == 0 else answer(i, **BAD))
            assert list(tmp_path.glob("*.parquet")) == []
    with parquet.ParquetFile(tmp_path / "a.parquet") as file:
        assert file.metadata.num_row_groups == -(-n // 3)
        rows = file.read().to_pylist()
    assert [row["id"] for row in rows] == [f"{i}.png" for i in range(n)]
    for row in rows[::2]:
        assert row["top"] == [{"label": "cat", "probability": 0.75}, {"label": "d\\udcffog", "probability": 0.25}]
        assert (row["set"], row["labels"], row["known"], row["probability:cat"]) == (["cat"], None, True, 0.75)
    for row in rows[1::2]:
        assert (row["label"], row["set"], row["probability:cat"], row["abstained"]) == (None, None, None, True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_parquet_that_is_not_whole_has_no_name(tmp_path):
    pytest.importorskip("pyarrow", reason='needs the extra: pip install "offshelf[parquet]"')

    def stopped() -> None:
        with parquet_writer(tmp_path / "a.parquet", None) as write:
            write({name: value for name, value in answer(0).items() if name != "probabilities"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "form", "resume", "said"),
    [
        (None, "parquet", False, "no stream of text"),
        (None, "csv", True, "no file to go on with"),
        ("a.parquet", "parquet", True, "cannot be gone on with"),
    ],
)
def test_what_cannot_be_is_said_before_the_work(path, form, resume, said):
    with pytest.raises(OptionError, match=said):
        Target(Path(path) if path else None, form, resume)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(OptionError, match=r"offshelf\[parquet\]"):
        Target(tmp_path / "a.parquet", "parquet")
