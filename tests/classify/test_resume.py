import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from classify.answers import fields_of
from classify.outputs import writer_of
from classify.resume import Part
from extract.errors import OptionError
from extract.record import Record

SAID = {"bundle": "0" * 64, "top": 5}
CLASSES = ('a "cat"', "a, dog\r\n")
IDS = [
    "plain.png",
    "two, commas, here.png",
    'a "quoted" name.png',
    "a\nline.png",
    "a\r\nline.png",
    "é\udcff.png",
    "x" * 300,
]


def answer(name: str, classes: tuple[str, ...] | None) -> dict[str, Any]:
    shares = dict.fromkeys(CLASSES, 0.5)
    top = [{"label": label, "probability": share} for label, share in shares.items()]
    said = {"id": name, "label": CLASSES[0], "probability": 0.5, "abstained": False, "set": None, "novelty": None}
    every = {"probabilities": shares} if classes else {}
    return {**said, "known": None, "top": top, **every, "status": "ok", "reason": 'he said "no",\nand left'}


def write(part: Part, names: list[str], end: int) -> None:
    """Write rows of these names as `predict` does."""
    with part.file(end) as file:
        add = writer_of(part.said["format"], file, part.classes, begun=end > 0)
        for name in names:
            add(answer(name, part.classes))


def rows_of(path: Path, form: str, classes: tuple[str, ...] | None) -> list[str]:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    if form == "jsonl":
        return [json.loads(line)["id"] for line in text.splitlines()]
    header, *rows = csv.reader(text.splitlines(keepends=True))
    assert header == fields_of(classes)
    return [row[0] for row in rows]


def part_of(folder: Path, form: str, classes: tuple[str, ...] | None = None, **known: Any) -> Part:
    return Part(folder / "answers", {**SAID, "format": form, **known}, classes)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(["csv", "jsonl"]),
    classes=st.sampled_from([None, CLASSES]),
    names=st.lists(st.sampled_from(IDS), max_size=5, unique=True),
    cut=st.floats(0, 1),
)
@example(form="csv", classes=None, names=IDS[:2], cut=1.0)
def test_whatever_was_cut_off_the_rest_makes_it_what_it_was_to_be(tmp_path, form, classes, names, cut):
    part = part_of(tmp_path, form, classes)
    write(part, names, part.begin())
    whole = part.path.read_bytes()
    part.begin()
    part.part.write_bytes(whole[: int(cut * len(whole))])
    part.path.unlink()
    assert part.check()
    left, n, end = part.left([Record(name, name) for name in names])
    rest = [record.id for record in left]
    assert names[:n] + rest == names
    assert end <= cut * len(whole)
    write(part, rest, end)
    assert part.path.read_bytes() == whole
    assert rows_of(part.path, form, classes) == names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers"]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_rows_behind_a_torn_one_do_not_count(tmp_path, form):
    part = part_of(tmp_path, form)
    write(part, ["a", "b", "c"], part.begin())
    lines = part.path.read_bytes().split(b"\n")
    torn = {"csv": b'a,"', "jsonl": b'{"id": '}[form]
    at = next(i for i, line in enumerate(lines) if line.startswith((b"b,", b'{"id": "b"')))
    part.begin()
    part.part.write_bytes(b"\n".join([*lines[:at], torn, *lines[at:]]))
    _, n, end = part.left([Record(name, name) for name in "abc"])
    assert n == 1
    assert part.part.read_bytes()[:end] == b"\n".join([*lines[:at], b""])


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("names", [[], ["a"], ["a", "x", "b"], ["b", "a"]])
def test_other_images_are_no_rest(tmp_path, form, names):
    part = part_of(tmp_path, form)
    write(part, ["a", "b"], part.begin())
    part.begin()
    part.path.rename(part.part)
    with pytest.raises(OptionError, match=r"row \d is of"):
        part.left([Record(name, name) for name in names])
    left, n, _ = part.left(iter([Record(name, name) for name in ["a", "b", "c"]]))
    assert ([record.id for record in left], n) == (["c"], 2)


@pytest.mark.parametrize("change", [{"bundle": "1" * 64}, {"top": 1}, {"format": "jsonl"}])
def test_another_run_or_form_is_not_gone_on_with(tmp_path, change):
    part = part_of(tmp_path, "csv")
    part.begin()
    part.part.write_text("")
    assert part.check()
    with pytest.raises(OptionError, match=f"begun with another {next(iter(change))}"):
        Part(part.path, {**part.said, **change}).check()


@pytest.mark.parametrize("beside", [None, "", "[]", "{}", "null"])
def test_rows_that_nothing_is_known_of_are_not_gone_on_with(tmp_path, beside):
    part = part_of(tmp_path, "csv")
    part.part.write_text("id\r\n")
    if beside is not None:
        part.beside.write_text(beside)
    with pytest.raises(OptionError, match="Leave out --resume"):
        part.check()


def test_without_rows_there_is_nothing_to_go_on_with(tmp_path):
    part = part_of(tmp_path, "csv")
    assert not part.check()
    part.begin()
    assert not part.check()


def test_two_cannot_write_one_file_at_once(tmp_path):
    pytest.importorskip("fcntl")
    part = part_of(tmp_path / "new", "csv")
    with part.alone():
        with (
            pytest.raises(OptionError, match=r"is at work on it.*another -o FILE"),
            part_of(tmp_path / "new", "csv").alone(),
        ):
            pass
        write(part, ["a"], part.begin())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["answers"]
