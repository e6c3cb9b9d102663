import builtins
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.errors import SourceError
from extract.record import Record
from extract.sources import open_source
from extract.sources.manifest import MAX_LINE


def manifest(folder: Path, text: str | bytes) -> str:
    path = folder / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_all_columns(tmp_path):
    text = "\ufeffpath,label,split,group,width\r\nb/2.jpg,dog,Valid,g1,3\r\n\r\n./a/1.jpg, cat ,,,4\r\n"
    source = open_source(manifest(tmp_path, text))
    assert source.records == (
        Record("a/1.jpg", f"{tmp_path}/a/1.jpg", "cat"),
        Record("b/2.jpg", f"{tmp_path}/b/2.jpg", "dog", "val", "g1"),
    )
    assert (source.name, source.origin, source.notes) == (
        "list",
        str(tmp_path / "list.csv"),
        ("ignored columns of the manifest: width",),
    )


def test_paths_are_relative_to_the_root_where_one_is_given(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    source = open_source(manifest(tmp_path, f'path\n"a, b.jpg"\n{root}/c.jpg\n'), root)
    assert source.origin == f"{tmp_path}/list.csv, below {root}"
    assert source.records == (Record("a, b.jpg", f"{root}/a, b.jpg"), Record("c.jpg", f"{root}/c.jpg"))


def test_an_absolute_path_through_a_linked_root_is_inside(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    source = open_source(manifest(tmp_path, f"path\n{tmp_path}/real/1.jpg\n"), tmp_path / "link")
    assert source.records == (Record("1.jpg", f"{tmp_path}/link/1.jpg"),)


def test_names_that_are_not_utf8_survive(tmp_path):
    (record,) = open_source(manifest(tmp_path, b"path\n\xff.jpg\n")).records
    assert os.fsencode(record.path) == os.fsencode(tmp_path) + b"/\xff.jpg"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('path,label\na.jpg,x\n"b.jpg,x\nc.jpg,x\n', 3, "unexpected end of data"),
        ('path,label\n"b.jpg,x\nc.jpg,x\n",y\n', 2, "a field goes on over several lines"),
        ('path,label\n"b.jpg"z,x\n', 2, "expected after"),
        ("path,label\na.jpg,x\nb.jpg\n", 3, "1 fields where the header has 2"),
        ("path,label\n\na.jpg,x,y\n", 3, "3 fields where the header has 2"),
        ("path\na.jpg\nb\0.jpg\n", 3, "a NUL character"),
        ("path,label\n,x\n", 2, "the path is empty"),
        ("path\n/etc/passwd\n", 2, "leads out of the root"),
        ("path\n../a.jpg\n", 2, "leads out of the root"),
        ("path\nb/../../a.jpg\n", 2, "leads out of the root"),
        ("path,label\n.,x\n", 2, "leads out of the root"),
        ("path\nout/a.jpg\n", 2, "leads out of the root"),
        ("path\nout.jpg\n", 2, "leads out of the root"),
        ("path\nhttps://example.com/a.jpg\n", 2, "is a URL"),
        ("path\na.jpg\nb.jpg\n./a.jpg\n", 4, "listed twice, first on line 2"),
        ("path,split\na.jpg,training\n", 2, "no split 'training'"),
        (f"path\n{'a' * 200_000}\n", 2, "field larger than field limit"),
        (f"path\n{'a' * MAX_LINE}", 2, "a line of"),
    ],
)
def test_a_bad_row_is_refused_by_its_line(text, line, what, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    (root / "out.jpg").symlink_to("/etc/passwd")
    with pytest.raises(SourceError) as caught:
        open_source(manifest(root, text))
    assert what in caught.value.what
    assert caught.value.where == f"{root}/list.csv, line {line}"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no column 'path'"),
        ("file;label\n", "no column 'path'"),
        ("path,path\n", "columns named twice: path"),
        ("path,label\n", "lists no images"),
    ],
)
def test_a_bad_header_is_refused(text, what, tmp_path):
    with pytest.raises(SourceError, match=what):
        open_source(manifest(tmp_path, text))


@given(st.binary(max_size=60))
def test_any_bytes_give_records_below_the_root_or_a_source_error(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    with suppress(SourceError):
        source = open_source(manifest(folder, b"path,label\n" + content))
        assert all(record.path.startswith(f"{folder}/") for record in source.records)


def test_a_pipe_named_csv_hangs_nobody(tmp_path):
    os.mkfifo(tmp_path / "list.csv")
    with pytest.raises(SourceError, match="no such file"):
        open_source(str(tmp_path / "list.csv"))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "list.parquet").touch()
    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(SourceError, match=r'pip install "offshelf\[parquet\]"'):
        open_source(str(tmp_path / "list.parquet"))


def test_parquet_follows_the_rules_of_csv(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "list.parquet"

    def write(**columns):
        parquet.write_table(pyarrow.table(columns), path)
        return str(path)

    source = open_source(write(path=["b.jpg", "a.jpg"], label=[3, None], extra=[1.0, 2.0]))
    assert source.records == (Record("a.jpg", f"{tmp_path}/a.jpg"), Record("b.jpg", f"{tmp_path}/b.jpg", "3"))
    assert source.notes == ("ignored columns of the manifest: extra",)
    with pytest.raises(SourceError, match="row 2: the path is empty"):
        open_source(write(path=["b.jpg", None]))
    path.write_bytes(b"PAR1 no such thing PAR1")
    with pytest.raises(SourceError, match="cannot be read"):
        open_source(str(path))
