import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.errors import SourceError
from extract.record import Failure, Record, Status
from extract.sources import Source, list_images, open_source, read_bytes


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def rows(source: Source) -> list[tuple[str, str | None, str | None]]:
    return [(record.id, record.label, record.split) for record in source.records]


def test_class_folders(tmp_path):
    root = put(tmp_path / "my data", "b/1.jpg", "a/deep/2.PNG", "a/notes.txt", ".git/x.jpg", "__MACOSX/a/2.png")
    (root / "empty").mkdir()
    source = open_source(str(root))
    assert rows(source) == [("a/deep/2.PNG", "a", None), ("b/1.jpg", "b", None)]
    assert (source.name, source.origin) == ("my-data", str(root))
    assert source.records[1].path == str(root / "b/1.jpg")
    assert source.notes == (
        "skipped 1 file that is not named as images: a/notes.txt",
        "no images in class folder 'empty'",
    )


def test_split_folders_with_a_flat_test(tmp_path):
    source = open_source(str(put(tmp_path, "train/a/1.jpg", "valid/a/2.jpg", "test/3.jpg")))
    assert rows(source) == [
        ("test/3.jpg", None, "test"),
        ("train/a/1.jpg", "a", "train"),
        ("valid/a/2.jpg", "a", "val"),
    ]


def test_a_flat_folder_is_unlabelled_and_sorted_as_strings(tmp_path):
    source = open_source(str(put(tmp_path, "b.jpg", "B.jpg", "a10.jpg", "a9.jpg")))
    assert rows(source) == [(name, None, None) for name in ("B.jpg", "a10.jpg", "a9.jpg", "b.jpg")]


def test_relative_data_gives_absolute_paths(tmp_path, monkeypatch):
    put(tmp_path, "a/1.jpg")
    monkeypatch.chdir(tmp_path)
    source = open_source(".")
    assert (source.origin, source.records[0].path) == (str(tmp_path), str(tmp_path / "a/1.jpg"))


def test_names_that_are_not_utf8_survive(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    with open(folder + b"/\xff.jpg", "wb") as file:
        file.write(b"x")
    (record,) = open_source(str(tmp_path)).records
    assert (record.id, record.label) == ("caf\udce9/\udcff.jpg", "caf\udce9")
    assert read_bytes(record, 1) == b"x"


def test_links_are_followed_and_cycles_end(tmp_path):
    root = put(tmp_path / "data", "a/1.jpg")
    put(tmp_path / "other", "2.jpg")
    (root / "b").symlink_to(tmp_path / "other")
    (root / "a/up").symlink_to(root)
    (root / "a/self").symlink_to("self")
    (tmp_path / "other/back").symlink_to(root / "a")
    (root / "a/gone.jpg").symlink_to("nowhere")
    assert [record.id for record in open_source(str(root)).records] == [
        "a/1.jpg",
        "a/gone.jpg",
        "b/2.jpg",
        "b/back/1.jpg",
        "b/back/gone.jpg",
    ]


def test_links_between_all_folders_do_not_multiply_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("extract.sources.folder.MAX_LINKED", 1000)
    for name in "abcdefgh":
        put(tmp_path, f"{name}/1.jpg")
        for other in "abcdefgh":
            (tmp_path / name / other).symlink_to(tmp_path / other)
    with pytest.raises(SourceError, match="links lead to more than 1000 folders"):
        open_source(str(tmp_path))


def test_an_unreadable_folder_is_an_error_not_a_smaller_data_set(tmp_path, monkeypatch):
    put(tmp_path, "a/1.jpg", "b/2.jpg")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("extract.sources.folder.os.scandir", refuse)
    with pytest.raises(SourceError, match="cannot be read: Permission denied"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("data", ["", "nowhere", "x.xyz", "a\0b", "n" * 5000, "s3://bucket/x"])
def test_what_is_no_data_lists_the_forms(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "x.xyz")
    with pytest.raises(SourceError, match="torchvision:NAME"):
        open_source(data)


def test_an_empty_folder_and_a_root_for_a_folder_are_errors(tmp_path):
    with pytest.raises(SourceError, match="no images"):
        open_source(str(tmp_path))
    with pytest.raises(SourceError, match="a root means nothing"):
        open_source(str(tmp_path), tmp_path)


def test_reading_one_file(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(b"0123456789")

    def read(max_bytes=100, span=None):
        return read_bytes(Record("x.jpg", str(path), span=span), max_bytes)

    assert read() == b"0123456789"
    assert read(10) == b"0123456789"
    assert read(9) == Failure(Status.TOO_LARGE, "10 bytes, more than the limit of 9")
    assert read(span=(2, 3)) == b"234"
    assert read(span=(8, 3)) == Failure(Status.MISSING, "its archive ends before it")
    assert read(span=(0, 0)) == Failure(Status.EMPTY, "no bytes")


def test_what_cannot_be_read_is_a_failure(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")

    def read(path):
        return read_bytes(Record("x.jpg", str(path)), 100)

    assert read(tmp_path / "empty.jpg") == Failure(Status.EMPTY, "no bytes")
    assert read(tmp_path / "folder.jpg") == Failure(Status.MISSING, "not a regular file")
    assert read(tmp_path / "pipe.jpg") == Failure(Status.MISSING, "not a regular file")
    assert read("/dev/zero") == Failure(Status.MISSING, "not a regular file")
    assert read(tmp_path / "gone.jpg") == Failure(Status.MISSING, "No such file or directory")
    assert read(tmp_path / "loop.jpg") == Failure(Status.MISSING, "Too many levels of symbolic links")
    assert read("a\0b") == Failure(Status.MISSING, "not a path that can be opened")


integers = st.integers(-(2**70), 2**70)


@given(st.text(max_size=20), st.none() | st.tuples(integers, integers), st.integers(0, 1000))
def test_reading_never_raises(name, span, max_bytes):
    for path in (name, f"torchvision:{name}", __file__):
        result = read_bytes(Record("x", path, span=span), max_bytes)
        assert isinstance(result, Failure) or 0 < len(result) <= max_bytes


def test_a_pipe_named_as_an_image_becomes_a_row_and_hangs_nobody(tmp_path):
    os.mkfifo(put(tmp_path, "a/1.jpg") / "a/pipe.jpg")
    reader = threading.Thread(
        target=lambda: [read_bytes(r, 9) for r in open_source(str(tmp_path)).records], daemon=True
    )
    reader.start()
    reader.join(10)
    assert not reader.is_alive()
    assert [record.id for record in open_source(str(tmp_path)).records] == ["a/1.jpg", "a/pipe.jpg"]


def test_files_and_folders_to_predict_keep_their_names_as_given(tmp_path, monkeypatch):
    put(tmp_path, "in/train/a/1.jpg", "in/2.png", "in/notes.txt", "odd.dat")
    monkeypatch.chdir(tmp_path)
    records = list_images([Path("odd.dat"), Path("in"), Path("./in/2.png")])
    assert records == (
        Record("in/2.png", str(tmp_path / "in/2.png")),
        Record("in/train/a/1.jpg", str(tmp_path / "in/train/a/1.jpg")),
        Record("odd.dat", str(tmp_path / "odd.dat")),
    )
    assert list_images([Path("in").resolve()])[0].id == f"{tmp_path}/in/2.png"


def test_manifests_to_predict_are_opened_and_lose_their_labels(tmp_path):
    put(tmp_path, "1.jpg")
    (tmp_path / "list.csv").write_text("path,label,split\n1.jpg,cat,val\n")
    assert list_images([tmp_path / "list.csv"]) == (Record("1.jpg", str(tmp_path / "1.jpg")),)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/list.csv").write_text("path\n1.jpg\n")
    with pytest.raises(SourceError, match=r"two images are called '1\.jpg'"):
        list_images([tmp_path / "list.csv", tmp_path / "other/list.csv"])


def test_a_missing_or_empty_input_to_predict_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="no such file or folder"):
        list_images([tmp_path / "gone.jpg"])
    with pytest.raises(SourceError, match="no images"):
        list_images([tmp_path])
