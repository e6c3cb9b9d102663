"""A kill before, inside and after every call that changes a cache, and an error of the disk at every one."""

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from extract import job
from extract.run import extract
from extract.store.known import FINE_NS
from tests.faults.storage import errors, kills, run_cases
from tests.tiny import put, tiny_folder, tiny_spec

pytestmark = [pytest.mark.fault, pytest.mark.timeout(900)]

IMAGES, SHARD_ROWS = 6, 3


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tiny_folder(tmp_path / "pets", per_class=IMAGES // 2)
    time.sleep(1.5 * FINE_NS / 1e9)  # else which files are remembered, and so the calls, would depend on the clock
    return folder


def carried_out(data: Path, folder: Path, faults: Iterable[dict[str, Any]], **known: str) -> list[dict[str, Any]]:
    cases = [{"cache": str(folder / "cases" / str(n)), "fault": fault, **known} for n, fault in enumerate(faults)]
    return run_cases(data, SHARD_ROWS, cases)


def calls_of_a_run(data: Path, folder: Path, **known: str) -> list[str]:
    [case] = carried_out(data, folder / "count", [{}], **known)
    return case["first"]["result"]["names"]


def assert_recovered(case: dict[str, Any], images: int = IMAGES, seen: tuple[int, ...] = (IMAGES,)) -> None:
    then = case["then"].get("result")
    assert then, case
    assert (then["unreadable"], then["touched"]) == ([], []), case
    assert (then["rows"], then["bad"], then["computed"] + then["kept"]) == (images, 0, images), case
    assert set(then["seen"]) <= set(seen), case


def test_a_kill_at_any_call_loses_no_row_that_was_written(data, tmp_path):
    names = calls_of_a_run(data, tmp_path)
    assert Counter(names)["link"] >= 4, "two shards, the tag and the recipe"
    done = carried_out(data, tmp_path, kills(names))
    assert {case["first"]["code"] for case in done} == {-9}
    for case in done:
        assert_recovered(case)
    results = [case["then"]["result"] for case in done]
    assert {result["kept"] for result in results} == {0, SHARD_ROWS, IMAGES}
    assert any(result["temporaries"] for result in results)


def test_a_kill_while_a_cache_is_brought_up_to_date_leaves_the_old_index_or_the_new_one(data, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "SHARD_ROWS", SHARD_ROWS)
    extract(tiny_spec(data, tmp_path / "base", taps=("penultimate",)))
    put(data / "cat/new.png", 999)
    time.sleep(1.5 * FINE_NS / 1e9)
    known = {"base": str(tmp_path / "base")}
    done = carried_out(data, tmp_path, kills(calls_of_a_run(data, tmp_path, **known)), **known)
    assert {case["first"]["code"] for case in done} == {-9}
    for case in done:
        assert_recovered(case, IMAGES + 1, (IMAGES, IMAGES + 1))
    seen = [tuple(case["then"]["result"]["seen"]) for case in done]
    assert seen == sorted(seen), "the old one, and from one call on the new one"
    assert set(seen) == {(IMAGES,), (IMAGES + 1,)}


def test_an_error_at_any_call_is_ours_and_loses_nothing(data, tmp_path):
    names = calls_of_a_run(data, tmp_path)
    done = carried_out(data, tmp_path, errors(names))
    for case in done:
        first = case["first"]
        assert first["code"] == 0 or first["error"].startswith("extract.errors.StoreError: "), case
        assert_recovered(case)
        then = case["then"]["result"]
        assert then["temporaries"] == 0 or names[case["fault"]["call"] - 1] == "unlink", case
    assert sum(case["first"]["code"] for case in done) > len(done) // 2
