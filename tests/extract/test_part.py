import functools
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract import job, loader
from extract import run as story
from extract.commit import NOT_BEGUN, briefly, commit_parts
from extract.errors import OptionError, StoreError
from extract.forward import Extractor, build_extractor
from extract.record import Status
from extract.run import dry_run, extract
from extract.spec import ExtractSpec
from extract.store import FeatureSet, known
from extract.store.folders import SetFolder
from extract.store.listing import parts_of, slice_of
from extract.store.lock import held, lock_of
from extract.store.sealed import parse
from tests.faults.storage import InProcess
from tests.tiny import assert_same_rows, features_of, files_in, put, rows_of, tiny_folder, tiny_spec

ROOT = Path(__file__).parents[2]
PARTS = 3


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch):
    monkeypatch.setattr(job, "SHARD_ROWS", 2)
    monkeypatch.setattr(loader, "Decoder", InProcess)  # what decodes is not at stake here, and costs a start
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(story, "build_extractor", lambda asked: built(asked.taps))


@pytest.fixture
def spec(tmp_path) -> ExtractSpec:
    return tiny_spec(tiny_folder(tmp_path / "pets", per_class=6), tmp_path / "cache")


@functools.cache
def built(taps: tuple[str, ...]) -> Extractor:
    return build_extractor(tiny_spec("", Path("cache"), taps=taps))


def compute(spec: ExtractSpec, *numbers: int, of: int = PARTS) -> list[dict]:
    return [extract(replace(spec, part=(number, of))) for number in numbers or range(1, of + 1)]


def commit(spec: ExtractSpec, features: str = "pets") -> dict:
    return commit_parts(features, spec.cache, on_wait=print)


def parts_of_index(path: Path) -> dict[str, np.ndarray]:
    """Every dataset of an index but the virtual ones."""
    return parse(path.read_bytes(), path, "index")[1]


@given(n=st.integers(1, 300), of=st.integers(1, 400), seed=st.integers(0, 99))
def test_the_parts_of_rows_are_those_whose_slices_have_them(n, of, seed):
    rows = np.flatnonzero(np.random.default_rng(seed).random(n) < 0.1)
    expected = [number for number in range(1, of + 1) if set(slice_of((number, of), n)) & set(rows.tolist())]
    assert parts_of(rows, of, n) == expected


@given(n=st.integers(0, 10_000), of=st.integers(1, 200))
def test_parts_cover_everything_exactly_once_and_are_of_one_size(n, of):
    slices = [slice_of((number, of), n) for number in range(1, of + 1)]
    assert [row for rows in slices for row in rows] == list(range(n))
    assert max(map(len, slices)) - min(map(len, slices)) <= 1


def test_parts_and_a_commit_make_the_index_of_one_extraction(spec, tmp_path):
    whole = extract(replace(spec, cache=tmp_path / "whole"))
    done = compute(spec, 2, 3, 1)
    assert [(each["part"], each["rows"], each["computed"]) for each in done] == [
        ("2/3", 4, 4),
        ("3/3", 4, 4),
        ("1/3", 4, 4),
    ]
    committed = commit(spec)
    assert (committed["rows"], committed["missing"], committed["again"], committed["bad"]) == (12, 0, [], 0)
    assert committed["features"] == whole["features"]
    here, there = parts_of_index(Path(committed["path"])), parts_of_index(Path(whole["path"]))
    assert here.keys() == there.keys()
    for name in here:
        assert np.array_equal(here[name], there[name]), name  # slices are of whole shards: also where the rows lie
    for layer in ("layer1", "penultimate"):
        assert np.array_equal(FeatureSet(Path(committed["path"])).read(layer), features_of(whole).read(layer))


def test_after_a_commit_an_extraction_reads_and_computes_nothing(spec, monkeypatch):
    monkeypatch.setattr(known, "FINE_NS", -(10**9))  # as if the files had been there for long
    monkeypatch.setattr(known, "COARSE_NS", -(10**9))
    compute(spec)
    index = Path(commit(spec)["path"])
    before = files_in(index.parent)
    monkeypatch.setattr("extract.contents.content_digest", lambda record: pytest.fail(f"{record.id} is read again"))
    done = extract(spec)
    assert (done["computed"], done["reused"]) == (0, 12)
    assert files_in(index.parent) == before


def test_rows_of_parts_that_are_not_done_are_told_and_computed_by_the_next(spec):
    compute(spec, 1, 3)
    done = commit(spec)
    assert (done["rows"], done["missing"], done["bad"], done["again"]) == (12, 4, 4, ["2/3"])
    features = FeatureSet(Path(done["path"]))
    assert features.status.tolist() == [Status.OK] * 4 + [Status.KILLED] * 4 + [Status.OK] * 4
    assert set(features.errors[4:8]) == {NOT_BEGUN.reason}
    assert np.isnan(features.read("penultimate", [4, 5, 6, 7])).all()
    [second] = compute(spec, 2)
    assert (second["computed"], second["reused"]) == (4, 0)
    assert commit(spec)["missing"] == 0


def test_an_extraction_goes_on_where_parts_have_ended(spec):
    compute(spec, 1, 3)
    commit(spec)
    done = extract(spec)
    assert (done["rows"], done["computed"], done["reused"], done["bad"]) == (12, 4, 8, 0)


def test_a_part_that_was_killed_is_told_and_goes_on_from_its_shards(spec, monkeypatch):
    real = job.engine_of

    def dying(asked):
        def run(shards, *given):
            yield from real(asked)(shards[:1], *given)
            raise MemoryError

        return run

    compute(spec, 1, 3)
    with monkeypatch.context() as patch:
        patch.setattr(job, "engine_of", dying)
        with pytest.raises(MemoryError):
            compute(spec, 2)
    done = commit(spec)
    assert done["missing"] == 2
    assert done["again"] == ["2/3"]
    reasons = set(FeatureSet(Path(done["path"])).errors) - {""}
    assert reasons == {"not computed yet: part 2/3 has not come to its end"}
    [again] = compute(spec, 2)
    assert again["computed"] == done["missing"]
    assert commit(spec)["missing"] == 0


def test_a_slice_does_not_depend_on_what_is_computed_already(spec):
    compute(spec, 1)
    assert [(each["computed"], each["reused"]) for each in compute(spec)] == [(0, 4), (4, 0), (4, 0)]


def test_parts_of_other_images_count_for_nothing(spec):
    compute(spec)
    put(Path(spec.data) / "ant/new.png", 500)
    compute(spec, 1)
    done = commit(spec)
    assert (done["rows"], done["missing"], done["again"]) == (13, 9, ["2/3", "3/3"])
    assert [each["computed"] for each in compute(spec, 2, 3)] == [0, 0]
    assert commit(spec)["missing"] == 0


def test_parts_of_several_numbers_make_one_whole(spec):
    compute(spec, 1, of=2)
    compute(spec, 3, 4, of=4)
    done = commit(spec)
    assert (done["missing"], done["again"]) == (0, [])


@pytest.mark.parametrize(
    ("run", "again"),
    [
        ([(1, 2), (3, 4)], ["2/2"]),
        ([(1, 4), (2, 4), (1, 2), (1, 1_000_000)], ["3/4", "4/4"]),
        ([(5, 6), (6, 6), (1, 3)], ["3/6", "4/6"]),
    ],
)
def test_of_parts_of_several_numbers_those_are_named_that_most_were_run_of(spec, run, again):
    for number, of in run:
        compute(spec, number, of=of)
    assert commit(spec)["again"] == again
    for each in again:
        compute(spec, int(each[0]), of=int(each[2:]))
    assert commit(spec)["missing"] == 0


def test_parts_are_named_in_few_words():
    assert briefly(["7/8"]) == "7/8"
    assert briefly([f"{number}/99" for number in (1, 2, 3, 5, 98, 99)]) == "1-3/99, 5/99, 98-99/99"
    assert briefly([f"{number}/99" for number in range(1, 99, 2)]).endswith(", 77/99, 79/99, and 9 more such")


def test_more_parts_than_their_names_can_tell_are_refused(spec):
    for work in (extract, dry_run):
        with pytest.raises(OptionError, match=r"1,000,000,000 parts\. Take 999,999,999 at most"):
            work(replace(spec, part=(1, 10**9)))
    assert not spec.cache.exists()


def test_a_part_that_is_computed_twice_counts_once(spec):
    compute(spec, 1, 2, 2, 3, 1)
    done = commit(spec)
    assert (done["rows"], done["missing"], done["bad"]) == (12, 0, 0)


@pytest.mark.filterwarnings("ignore:::PIL")
def test_bad_images_and_equal_ones_are_rows_as_ever(spec, tmp_path):
    data = Path(spec.data)
    (data / "cat/bad.png").write_bytes(b"words")
    (data / "cat/gone.png").symlink_to(tmp_path / "nowhere")
    (data / "dog/zz.png").write_bytes((data / "cat/00.png").read_bytes())
    done = compute(spec)
    assert sum(each["bad"] for each in done) == 2
    committed = commit(spec)
    assert (committed["missing"], committed["bad"]) == (0, 2)
    got, expected = FeatureSet(Path(committed["path"])), features_of(extract(replace(spec, cache=tmp_path / "whole")))
    assert_same_rows(rows_of(got), rows_of(expected))
    assert (got.errors, got.status.tolist()) == (expected.errors, expected.status.tolist())
    assert got.sha256.tolist() == expected.sha256.tolist()


def test_more_parts_than_images_leave_some_with_nothing(spec):
    done = compute(spec, of=20)
    assert sorted(each["rows"] for each in done) == [0] * 8 + [1] * 12
    assert commit(spec)["missing"] == 0


def test_a_dry_run_of_a_part_counts_its_own_rows_and_writes_nothing(spec):
    planned = dry_run(replace(spec, part=(2, 3)))
    assert (planned["rows"], planned["to_compute"]) == (4, 4)
    assert not spec.cache.exists()


def test_parts_do_not_exclude_each_other_but_what_is_none(spec):
    [first] = compute(spec, 1)
    folder = Path(first["path"]).parents[1]
    with held(lock_of(folder), wait=False, on_wait=print, shared=True):
        compute(spec, 2)
        for work in (lambda: extract(spec), lambda: commit(spec)):
            with pytest.raises(StoreError, match="is at work on it"):
                work()
    assert not lock_of(folder).exists()
    with held(lock_of(folder), wait=False, on_wait=print), pytest.raises(StoreError, match="is at work on it"):
        compute(spec, 3)


def test_without_parts_there_is_nothing_to_commit(spec):
    extract(spec)
    with pytest.raises(StoreError, match=r"no parts of it.*--part K/N"):
        commit(spec)
    with pytest.raises(StoreError, match="no features 'pots'"):
        commit(spec, "pots")


def test_a_commit_says_which_recipe_it_is_to_be_of(spec):
    compute(spec)
    [other] = compute(replace(spec, taps=("layer2",)), 1, of=1)
    with pytest.raises(StoreError, match="parts of 2 recipes"):
        commit(spec)
    assert commit(spec, other["features"])["missing"] == 0


def test_other_images_are_not_committed_under_a_name(spec, tmp_path):
    extract(spec)
    compute(replace(spec, data=str(tiny_folder(tmp_path / "other/pets", seed=500))))
    with pytest.raises(StoreError, match=r"other images.*--name"):
        commit(spec)


def test_images_that_were_moved_are_committed_once_enough_parts_have_seen_them(spec, tmp_path):
    compute(spec)
    before = Path(commit(spec)["path"])
    there = replace(spec, data=str(shutil.move(spec.data, tmp_path / "moved")), name="pets")
    whole = files_in(before.parent)["features.h5"]
    assert [each["computed"] for each in compute(there, 1)] == [0]
    with pytest.raises(StoreError) as refused:
        commit(spec)
    assert "other images" in refused.value.what
    assert refused.value.what.endswith("as far as parts have seen them")
    assert "Run the other parts first (2-3/3), and this again" in refused.value.remedy
    assert files_in(before.parent)["features.h5"] == whole
    compute(there, 2)
    assert commit(spec)["again"] == ["3/3"]
    compute(there, 3)
    done = commit(spec)
    assert (done["missing"], FeatureSet(Path(done["path"])).source) == (0, there.data)


def test_where_no_part_has_seen_the_images_that_are_listed_an_index_is_left_as_it_is(spec):
    [_, _, done] = compute(spec)
    index = Path(commit(spec)["path"])
    before = index.read_bytes()
    for path in Path(done["path"]).parent.glob("*-of-3.h5"):
        path.unlink()
    with pytest.raises(StoreError, match="no part has seen the images that are listed now"):
        commit(spec)
    assert index.read_bytes() == before


def test_a_damaged_file_of_a_part_is_told(spec):
    [done] = compute(spec, 1)
    path = Path(done["path"])
    content = bytearray(path.read_bytes())
    content[-200] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="the part is damaged"):
        commit(spec)


def test_what_parts_leave_goes_with_their_feature_set(spec):
    from extract.store.housekeeping import collect_garbage, remove

    compute(spec)
    folder = SetFolder(Path(commit(spec)["path"]).parent)
    kinds = {item["path"]: item["kind"] for item in collect_garbage(["pets"], spec.cache)["items"]}
    assert {Path(path).name for path in kinds} >= {"listing.h5", "1-of-3.h5", "3-of-3-contents.h5"}
    assert set(kinds.values()) == {"unfinished"}
    assert remove([folder])["left"] == []
    assert not folder.path.exists()


# A part as a process of its own, that is killed once its first shard is written.
COMMAND = """
import os, signal, sys
from extract import job, shard
import pipeline

write = shard.write_shard
def write_and_die(*given):
    write(*given)
    os.kill(os.getpid(), signal.SIGKILL)

job.SHARD_ROWS, shard.write_shard = 2, write_and_die
pipeline.main(sys.argv[1:])
"""


def begun(spec: ExtractSpec, part: str) -> subprocess.Popen[str]:
    options = ["-m", "builtin", "--weights", "none", "-l", "layer1", "-l", "penultimate", "--device", "cpu"]
    given = ["extract", spec.data, "--cache", str(spec.cache), "-j", "1", "-b", "1", "--part", part, *options]
    return subprocess.Popen([sys.executable, "-c", COMMAND, *given], cwd=ROOT, text=True)


@pytest.mark.timeout(300)
def test_parts_at_once_one_of_them_killed_and_run_again(spec, tmp_path):
    with begun(spec, "2/2") as process:
        compute(spec, 1, of=2)
    assert process.returncode == -signal.SIGKILL
    done = commit(spec)
    assert (done["rows"], done["missing"], done["again"]) == (12, 4, ["2/2"])
    [again] = compute(spec, 2, of=2)
    assert (again["computed"], again["reused"]) == (4, 2)
    done = commit(spec)
    assert (done["missing"], done["bad"]) == (0, 0)
    whole = extract(replace(spec, cache=tmp_path / "whole"))
    assert_same_rows(rows_of(FeatureSet(Path(done["path"]))), rows_of(features_of(whole)))
