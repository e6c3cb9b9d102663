import errno
import gc
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classify.archive import bundle_folder, read_run, write_archive
from classify.bundle import read_bundle
from classify.predict import PredictSpec, predict, records_of
from extract.errors import BundleError
from extract.progress import Silent
from tests.tiny_bundle import make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with `data`, `run` and `run.zip`."""
    work = tmp_path_factory.mktemp("archive")
    write_archive(make_run(work, per_class=2) / "bundle", work / "run.zip")
    return work


def test_a_zip_answers_as_its_folder(made):
    records = records_of((str(made / "data"),))
    zipped, plain = (
        list(predict(PredictSpec(str(made / name), device="cpu", workers=1), records, Silent()))
        for name in ("run.zip", "run")
    )
    assert zipped == plain
    assert len(plain) == 4


def test_what_was_unpacked_goes_with_the_bundle(made):
    bundle = read_run(str(made / "run.zip"))
    folder = bundle.folder
    assert folder is not None
    assert bundle.weights_path.is_file()
    assert bundle.digest == read_bundle(made / "run" / "bundle").digest
    del bundle
    gc.collect()
    assert not folder.exists()


def test_equal_bundles_make_equal_archives(made, tmp_path):
    copied = shutil.copytree(made / "run" / "bundle", tmp_path / "elsewhere", copy_function=shutil.copy)
    write_archive(copied, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == (made / "run.zip").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.zip", "elsewhere"]


def test_what_is_no_bundle_is_not_written(made, tmp_path):
    folder = Path(shutil.copytree(made / "run" / "bundle", tmp_path / "bundle"))
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="holds more than a bundle"):
        write_archive(folder, tmp_path / "a.zip")
    (folder / "notes.txt").unlink()
    (folder / "recipe.json").write_text("{}")
    with pytest.raises(BundleError, match=r"recipe\.json"):
        write_archive(folder, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_a_place_that_cannot_be_written_is_told(made, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="cannot write"):
        write_archive(made / "run" / "bundle", tmp_path / "file" / "a.zip")


def test_a_run_is_found_by_name_and_by_folder(made, tmp_path, monkeypatch):
    shutil.copytree(made / "run", tmp_path / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    assert bundle_folder("mine") == Path("runs/mine/bundle")
    assert bundle_folder("runs/mine") == bundle_folder("runs/mine/bundle") == Path("runs/mine/bundle")
    with pytest.raises(BundleError, match="no run of that name or path"):
        read_run("gone.zip")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_bit_of_an_archive_changes_an_answer(made, tmp_path, place, bit):
    data = bytearray((made / "run.zip").read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    (tmp_path / "a.zip").write_bytes(data)
    try:
        bundle = read_run(str(tmp_path / "a.zip"))
    except BundleError:
        return
    assert bundle.digest == read_bundle(made / "run" / "bundle").digest


def test_where_nothing_can_be_unpacked_is_said_of_the_archive(made, monkeypatch):
    def full(prefix: str) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"/somewhere/{prefix}")

    monkeypatch.setattr("classify.archive.tempfile.mkdtemp", full)
    with pytest.raises(BundleError, match=r"run\.zip: cannot be unpacked \(No space left on device\).*TMPDIR"):
        read_run(str(made / "run.zip"))
