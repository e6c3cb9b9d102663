import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classify.hygiene.duplicates import Duplicates
from classify.hygiene.near import Pair
from classify.hygiene.tables import FIELDS, _safe, conflict_rows, duplicate_rows, write_findings

EMPTY = {name: [] for name in FIELDS}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def test_every_table_is_written_with_its_columns(tmp_path: Path) -> None:
    found = {"id": "a/1.jpg", "split": "train", "label": "a", "distance": 0.25, "score": 4.5}
    write_findings(tmp_path / "findings", {**EMPTY, "outliers": [found]})
    assert sorted(path.name for path in (tmp_path / "findings").iterdir()) == sorted(f"{name}.csv" for name in FIELDS)
    assert read(tmp_path / "findings" / "outliers.csv") == [{name: str(value) for name, value in found.items()}]
    for name, columns in FIELDS.items():
        header = (tmp_path / "findings" / f"{name}.csv").read_text().splitlines()[0]
        assert header == ",".join(columns)


@pytest.mark.parametrize("name", ["=1+1.jpg", "+a/b", "-rf", "@SUM(A1)", "\tx", "\rx", "'=x"])
def test_no_name_is_a_formula_and_every_name_can_be_had_back(tmp_path: Path, name: str) -> None:
    row = {"id": name, "split": "", "label": name, "distance": -0.5, "score": 1.0}
    write_findings(tmp_path, {"outliers": [row]})
    [found] = read(tmp_path / "outliers.csv")
    assert found["id"] == found["label"] == "'" + name
    assert found["distance"] == "-0.5"


@settings(max_examples=100)
@given(st.text(alphabet="=+-@'\t\rab/"))
def test_taking_one_apostrophe_off_gives_the_text_back(text: str) -> None:
    safe = _safe(text)
    assert not safe.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert safe.removeprefix("'") == text


def test_names_of_any_bytes_are_kept(tmp_path: Path) -> None:
    name = b'a/\xff "x", y\nz.jpg'.decode("utf-8", "surrogateescape")
    row = {"id": name, "split": "", "label": "a", "distance": 0.0, "score": 1.0}
    write_findings(tmp_path, {"outliers": [row]})
    assert b"\xff" in (tmp_path / "outliers.csv").read_bytes()
    assert read(tmp_path / "outliers.csv")[0]["id"] == name


def test_pairs_across_splits_come_first_and_two_labels_of_one_image_are_a_conflict(make_features) -> None:
    splits = ["train", "train", "test", "train"]
    features = make_features(np.array([0, 0, 1, 1]), ["a", "b"], splits=splits)
    pairs = [Pair(0, 1, "exact", 0.0, 1.0), Pair(0, 2, "near", 0.01234567, 0.95), Pair(1, 3, "near", 0.02)]
    found = Duplicates(np.arange(4), pairs, np.zeros(4, np.int64), True, "pixels")
    rows = duplicate_rows(features, found, {0: "a", 1: "a", 2: "b"})
    assert [(row["id_a"], row["id_b"]) for row in rows] == [
        ("0000.png", "0002.png"),
        ("0000.png", "0001.png"),
        ("0001.png", "0003.png"),
    ]
    assert rows[0] == {
        "id_a": "0000.png",
        "id_b": "0002.png",
        "split_a": "train",
        "split_b": "test",
        "label_a": "a",
        "label_b": "b",
        "distance": 0.012346,
        "ncc": 0.95,
        "kind": "near",
    }
    assert rows[2]["ncc"] is None
    assert conflict_rows(rows) == [
        {"id_a": "0000.png", "id_b": "0002.png", "label_a": "a", "label_b": "b", "kind": "near"}
    ]
