import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extract import commit, job, loader
from extract.commit import NOT_YET, Commits
from extract.errors import ShardsFailed
from extract.record import Status
from extract.run import extract
from extract.shard import Receipt
from extract.spec import ExtractSpec
from extract.store import FeatureSet
from extract.store.index import Entry
from extract.store.listing import About
from tests.extract.store.tiny_cache import RECIPE, SHAPES, entry, put_set, put_shard
from tests.faults.storage import InProcess
from tests.tiny import assert_same_rows, features_of, rows_of, tiny_folder, tiny_spec


@pytest.fixture
def spec(tmp_path, monkeypatch) -> ExtractSpec:
    monkeypatch.setattr(job, "SHARD_ROWS", 3)
    monkeypatch.setattr(loader, "Decoder", InProcess)  # what decodes is not at stake here, and costs a start
    monkeypatch.setattr(os, "fsync", lambda _: None)
    return tiny_spec(tiny_folder(tmp_path / "pets"), tmp_path / "cache")


Engine = Callable[..., Iterator[Receipt]]


def engine_of(monkeypatch: pytest.MonkeyPatch, around: Callable[..., Iterator[Receipt]]) -> None:
    """Put an engine around the real one: `around` is given that, its shards and the rest."""
    real = job.engine_of
    monkeypatch.setattr(job, "engine_of", lambda asked: lambda *given: around(real(asked), *given))


def test_an_index_grows_with_its_shards_and_is_right_whenever_it_is_read(spec, monkeypatch, tmp_path):
    expected = rows_of(features_of(extract(replace(spec, cache=tmp_path / "whole"))))
    monkeypatch.setattr(commit, "COMMIT_S", 0)
    monkeypatch.setattr(commit, "COMMIT_SHARE", 0)
    seen = []

    def around(real: Engine, shards: Any, extractor: Any, folder: Path, *given: Any) -> Iterator[Receipt]:
        for receipt in real(shards, extractor, folder, *given):
            yield receipt
            features = FeatureSet(folder.parent / "features.h5").check()  # what a reader sees now
            rows = rows_of(features)
            there = features.status == Status.OK
            assert {features.errors[i] for i in np.flatnonzero(~there)} <= {NOT_YET.reason}
            assert (features.status[~there] == Status.KILLED).all()
            good = {name for name, ok in zip(features.ids, there, strict=True) if ok}
            assert_same_rows({name: rows[name] for name in good}, {name: expected[name] for name in good})
            seen.append(len(good))

    engine_of(monkeypatch, around)
    done = extract(spec)
    assert seen == [3, 6, 8]
    assert_same_rows(rows_of(features_of(done)), expected)
    assert (done["computed"], done["bad"]) == (8, 0)


def test_what_was_committed_before_a_run_died_is_read_and_the_next_goes_on(spec, monkeypatch):
    monkeypatch.setattr(commit, "COMMIT_S", 0)

    def around(real: Engine, shards: Any, *given: Any) -> Iterator[Receipt]:
        yield from real(shards[:2], *given)
        raise MemoryError

    with monkeypatch.context() as patch:
        engine_of(patch, around)
        with pytest.raises(MemoryError):
            extract(spec)
    [index] = spec.cache.glob("pets/*/features.h5")
    assert (FeatureSet(index).check().status == Status.OK).sum() == 3, "a commit after the first, then it is too soon"
    done = extract(spec)
    assert (done["computed"], done["reused"], done["bad"]) == (2, 6, 0)


def test_shards_that_failed_are_rows_with_the_reason_and_the_next_run_computes_them(spec, monkeypatch):
    (Path(spec.data) / "dog/zz.png").write_bytes((Path(spec.data) / "dog/00.png").read_bytes())

    def around(real: Engine, shards: Any, *given: Any) -> Iterator[Receipt]:
        yield from real([shards[0], shards[2]], *given)
        raise ShardsFailed("1 of 3 shards failed", failed=[(1, "its worker died 4 times")])

    with monkeypatch.context() as patch:
        engine_of(patch, around)
        with pytest.raises(ShardsFailed, match="1 of 3 shards failed"):
            extract(spec)
    [index] = spec.cache.glob("pets/*/features.h5")
    features = FeatureSet(index).check()
    bad = {features.ids[i]: features.errors[i] for i in np.flatnonzero(features.status)}
    names = ("cat/03.jpg", "dog/00.png", "dog/01.jpg", "dog/zz.png")
    assert bad == dict.fromkeys(names, "its worker died 4 times")
    assert set(features.status.tolist()) == {Status.OK, Status.KILLED}
    done = extract(spec)
    assert (done["rows"], done["computed"], done["reused"], done["bad"]) == (9, 3, 5, 0)


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(("takes_s", "expected"), [(1.0, [300, 610, 920]), (60.0, [300, 1560])])
def test_a_commit_takes_but_a_small_part_of_the_time(tmp_path, monkeypatch, takes_s, expected):
    clock, commits = Clock(), []

    def write(*_: object) -> None:
        commits.append(clock.now)
        clock.now += takes_s

    monkeypatch.setattr(commit, "time", clock)
    monkeypatch.setattr(commit, "write_index", write)
    folder = put_set(tmp_path / "cache", [[0]])
    path = put_shard(folder, [1])
    growing = Commits(folder.path, About(RECIPE, SHAPES, "/data"), [entry(0), entry(1)], [])
    for now in range(10, 2000, 10):
        clock.now = max(clock.now, now)
        growing.add(path.name)
    assert commits[: len(expected)] == expected


def test_what_an_image_lacks_is_told_by_its_content(tmp_path):
    folder = put_set(tmp_path / "cache", [[0]])
    entries = [entry(0), entry(1), entry(2)]
    growing = Commits(folder.path, About(RECIPE, SHAPES, "/data"), entries, [])
    growing.add(put_shard(folder, [0]).name)
    reason = replace(NOT_YET, reason="its worker died")
    table = growing.write({entries[1].content: reason}, otherwise=NOT_YET)
    assert table.errors == ["", "its worker died", NOT_YET.reason]
    assert growing.write().errors == ["", *[Entry(entries[1].record, b"").lacking.reason] * 2]
