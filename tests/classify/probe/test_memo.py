import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify.probe import memo as module
from classify.probe.memo import Memo, digest, memo, pack, unpack

KEY = {"features": "f00", "rows": "123"}


class Counter:
    """Computes, and counts how often."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self) -> dict:
        self.n += 1
        return {
            "predicted": np.arange(6, dtype=np.int16).reshape(2, 3),
            "lams": np.array([0.5]),
            "kind": f"run {self.n}",
        }


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # waits for the disk, which nothing here can tell


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_a_second_call_with_the_same_key_computes_nothing(tmp_path):
    compute = Counter()
    first, second = (memo(tmp_path / "fits").remember("scan", KEY, compute) for _ in range(2))
    assert compute.n == 1
    assert (first["kind"], second["kind"]) == ("run 1", "run 1")
    for name in ("predicted", "lams"):
        assert first[name].dtype == second[name].dtype
        assert np.array_equal(first[name], second[name])
    [entry] = entries(tmp_path / "fits")
    assert entry.suffix == ".fit"


def test_another_process_finds_it(tmp_path):
    said = memo(tmp_path).remember("scan", KEY, lambda: {"a": np.arange(3), "by": "one"})
    program = (
        "import sys; from pathlib import Path; from classify.probe.memo import memo\n"
        "print(memo(Path(sys.argv[1])).remember('scan', {'features': 'f00', 'rows': '123'}, lambda: {'by': 'other'}))"
    )
    found = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert f"'by': {said['by']!r}" in found.stdout


@pytest.mark.parametrize("change", ["function", "key", "another key", "version", "packages"])
def test_whatever_a_result_depends_on_is_in_the_key(tmp_path, monkeypatch, change):
    compute = Counter()
    memo(tmp_path).remember("scan", KEY, compute)
    if change == "version":
        monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    if change == "packages":
        monkeypatch.setattr(module, "versions", lambda _: {"numpy": "0"})
    key = {"key": KEY | {"rows": "124"}, "another key": KEY | {"more": ""}}.get(change, KEY)
    memo(tmp_path).remember("fold" if change == "function" else "scan", key, compute)
    assert compute.n == 2


def test_without_a_folder_nothing_is_kept():
    compute = Counter()
    results = [memo(None).remember("scan", KEY, compute) for _ in range(2)]
    assert compute.n == 2
    assert np.array_equal(results[0]["predicted"], results[1]["predicted"])


def test_a_fresh_result_is_no_different_from_a_kept_one(tmp_path):
    fresh, kept = (memo(tmp_path).remember("x", KEY, lambda: {"pair": (1, None), "n": {"a": 1.5}}) for _ in range(2))
    assert fresh == kept == {"pair": [1, None], "n": {"a": 1.5}}


@pytest.mark.parametrize("value", [np.array(["text"]), np.array([object()]), {1, 2}, np.float64])
def test_what_is_neither_numbers_nor_json_is_refused(tmp_path, value):
    with pytest.raises(TypeError):
        memo(tmp_path / "fits").remember("x", KEY, lambda: {"value": value})
    assert not (tmp_path / "fits").exists()


class Planted:
    def __reduce__(self):
        return os.system, ("touch planted",)


def sealed(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


HOSTILE = {
    "a pickle": lambda _: pickle.dumps(Planted()),
    "a pickle under a seal": lambda _: sealed(pickle.dumps(Planted())),
    "an array of pickles": lambda _: sealed(b"\x93NUMPY\x01\x00" + pickle.dumps(Planted())),
    "nothing": lambda _: b"",
    "half of it": lambda data: data[: len(data) // 2],
    "a bit changed": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "of another id": lambda _: pack("0" * 32, {"kind": "run 0"}),
    "a header without end": lambda _: sealed((2**62).to_bytes(8, "little") + b"{}"),
    "nested too deep": lambda _: sealed(len(deep := b"[" * 200_000).to_bytes(8, "little") + deep),
    "no metadata": lambda _: sealed((2).to_bytes(8, "little") + b"{}"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_damaged_and_hostile_files_are_misses_and_are_replaced(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    compute = Counter()
    memo(tmp_path / "fits").remember("scan", KEY, compute)
    [entry] = entries(tmp_path / "fits")
    entry.write_bytes(HOSTILE[what](entry.read_bytes()))
    for _ in range(2):
        assert memo(tmp_path / "fits").remember("scan", KEY, compute)["kind"] == "run 2"
    assert compute.n == 2
    assert not (tmp_path / "planted").exists()


def test_what_joblib_would_have_written_is_never_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compute = Counter()
    memo(tmp_path / "fits").remember("scan", KEY, compute)
    [entry] = entries(tmp_path / "fits")
    entry.unlink()
    for folder in (tmp_path / "fits" / entry.stem, tmp_path / "fits" / "classify" / entry.stem):
        folder.mkdir(parents=True)
        (folder / "output.pkl").write_bytes(pickle.dumps(Planted()))
    entry.mkdir()
    assert memo(tmp_path / "fits").remember("scan", KEY, compute)["kind"] == "run 2"
    assert not (tmp_path / "planted").exists()


def test_no_link_is_followed(tmp_path):
    compute = Counter()
    memo(tmp_path / "fits").remember("scan", KEY, compute)
    [entry] = entries(tmp_path / "fits")
    entry.rename(tmp_path / "elsewhere")
    entry.symlink_to(tmp_path / "elsewhere")
    memo(tmp_path / "fits").remember("scan", KEY, compute)
    assert compute.n == 2


def test_a_full_or_forbidden_disk_costs_no_result(tmp_path, caplog):
    (tmp_path / "file").write_text("where the folder should be")
    compute = Counter()
    assert memo(tmp_path / "file" / "fits").remember("scan", KEY, compute)["kind"] == "run 1"
    assert "not kept for the next fit" in caplog.text


def test_what_was_not_asked_for_longest_goes_first(tmp_path):
    size = len(pack("0" * 32, Counter()()))
    kept = Memo(tmp_path, limit_bytes=3 * size + 9)
    for number in range(3):
        kept.remember("scan", KEY | {"n": str(number)}, Counter())
        for path in entries(tmp_path):
            os.utime(path, (path.stat().st_atime - 100, path.stat().st_mtime - 100))
    again = Counter()
    kept.remember("scan", KEY | {"n": "0"}, again)
    kept.remember("scan", KEY | {"n": "3"}, Counter())
    assert len(entries(tmp_path)) == 3
    kept.remember("scan", KEY | {"n": "0"}, again)
    assert again.n == 0
    kept.remember("scan", KEY | {"n": "1"}, again)
    assert again.n == 1


def test_a_result_beyond_the_limit_is_not_kept(tmp_path):
    compute = Counter()
    for _ in range(2):
        Memo(tmp_path, limit_bytes=50).remember("scan", KEY, compute)
    assert compute.n == 2
    assert entries(tmp_path) == []


def test_clearing_takes_what_is_ours_and_nothing_else(tmp_path):
    kept = memo(tmp_path)
    kept.remember("scan", KEY, Counter())
    (tmp_path / "notes.txt").write_text("mine")
    kept._kept.clear(warn=False)
    assert [path.name for path in entries(tmp_path)] == ["notes.txt"]


def test_two_processes_at_once_leave_one_whole_entry(tmp_path):
    program = (
        "import sys, numpy as np; from pathlib import Path; from classify.probe.memo import memo\n"
        "for n in range(20):\n"
        "    found = memo(Path(sys.argv[1])).remember('x', {'n': str(n % 3)}, lambda: {'a': np.full(50_000, n % 3)})\n"
        "    assert (found['a'] == n % 3).all() and len(found['a']) == 50_000"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, tmp_path]) for _ in range(2)]
    assert [each.wait(60) for each in running] == [0, 0]
    assert len(entries(tmp_path)) == 3


@given(st.dictionaries(st.text(), st.one_of(st.none(), st.integers(), st.text(), st.floats(allow_nan=False))))
def test_values_survive_a_file(values):
    result = {**values, "array": np.array(3.5, np.float32)}
    found = unpack("id", pack("id", result))
    assert found is not None
    assert {name: found[name] for name in values if name != "array"} == {
        k: v for k, v in values.items() if k != "array"
    }
    assert found["array"] == np.float32(3.5)


def test_digests_tell_parts_types_and_shapes_apart():
    X = np.arange(6)
    different = [
        digest(X), digest(X.astype(np.int32)), digest(X.reshape(2, 3)), digest(X[:3], X[3:]), digest([X[:3], X[3:]]),
        digest(), digest(None), digest(""), digest("ab"), digest("a", "b"), digest([]), digest([("a",)]),
    ]  # fmt: skip
    assert len(set(different)) == len(different)
    assert digest(X[::-1][::-1], "a", None) == digest(X.copy(), "a", None)
    with pytest.raises(TypeError, match="no digest of dict"):
        digest({})
