import gzip
import io
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.errors import SourceError
from extract.record import Record
from extract.sources import open_source, read_bytes
from extract.sources.tar import expand_braces


def write(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo, format: int = tarfile.PAX_FORMAT) -> str:  # noqa: A002
    with tarfile.open(path, "w", format=format) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return str(path)


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def rows(data: str) -> list[tuple[str, str | None, str | None]]:
    return [(record.id, record.label, record.split) for record in open_source(data).records]


def test_members_in_class_folders_are_read_in_place(tmp_path):
    data = write(tmp_path / "my set.tar", ("./b/2.jpg", b"two"), ("./a/é.png", b"one"), ("./.x/3.jpg", b"no"))
    source = open_source(data)
    assert [(r.id, r.label, r.path) for r in source.records] == [("a/é.png", "a", data), ("b/2.jpg", "b", data)]
    assert [read_bytes(record, 10) for record in source.records] == [b"one", b"two"]
    assert (source.name, source.origin, source.notes) == ("my-set", data, ())


def test_one_folder_around_all_members_is_no_class(tmp_path):
    data = write(
        tmp_path / "x.tar",
        special("h", tarfile.DIRTYPE),
        special("h/val/a", tarfile.DIRTYPE),
        ("h/train/a/1.jpg", b"1"),
        ("h/train/b/1.jpg", b"2"),
        ("h/README", b"hello"),
    )
    assert rows(data) == [("h/train/a/1.jpg", "a", "train"), ("h/train/b/1.jpg", "b", "train")]
    assert open_source(data).notes == (
        "skipped 1 file that is not named as images: h/README",
        "no images in class folder 'val/a'",
    )


def test_webdataset_labels(tmp_path):
    data = write(
        tmp_path / "x.tar",
        ("0.jpg", b"x"),
        ("0.cls", b" 7\n"),
        ("0.txt", b"no label"),
        ("1.seg.png", b"x"),
        ("1.json", b'{"label": "cat"}'),
        ("2.jpg", b"x"),
        ("2.json", b'{"cls": 3}'),
        ("2.cls", b"dog"),
        ("3.jpg", b"x"),
        ("3.json", b'{"width": 4}'),
    )
    assert rows(data) == [
        ("0.jpg", "7", None),
        ("1.seg.png", "cat", None),
        ("2.jpg", "dog", None),
        ("3.jpg", None, None),
    ]


def test_several_archives_share_one_layout_and_carry_their_stems(tmp_path):
    write(tmp_path / "s-00.tar", ("a/1.jpg", b"1"))
    write(tmp_path / "s-01.tar", ("b/1.jpg", b"2"))
    source = open_source(f"{tmp_path}/s-{{00..01}}.tar")
    assert [(r.id, r.label, read_bytes(r, 1)) for r in source.records] == [
        ("s-00/a/1.jpg", "a", b"1"),
        ("s-01/b/1.jpg", "b", b"2"),
    ]
    assert source.name == "s-00..01"
    with pytest.raises(SourceError, match=r"1 of 3 archives are missing: .*s-02.tar"):
        open_source(f"{tmp_path}/s-{{00..02}}.tar")


def test_braces():
    assert expand_braces("s/{008..011}.tar") == ["s/008.tar", "s/009.tar", "s/010.tar", "s/011.tar"]
    assert expand_braces("{a,b}-{2..1}.tar") == ["a-2.tar", "a-1.tar", "b-2.tar", "b-1.tar"]
    assert expand_braces("{a,b{1,2}}") == ["a", "b1", "b2"]
    assert expand_braces("{a}{") == ["{a}{"]
    for pattern in ("{0..99999999999}", "{0..999}{0..999}"):
        with pytest.raises(SourceError, match="more than 100000"):
            expand_braces(pattern)


@given(st.integers(0, 2000), st.integers(0, 60), st.integers(1, 5))
def test_ranges_keep_their_zeros(first, count, width):
    low, high = f"{first:0{width}d}", f"{first + count:0{width}d}"
    expected = [f"x{number:0{width}d}.tar" for number in range(first, first + count + 1)]
    assert expand_braces(f"x{{{low}..{high}}}.tar") == expected


@given(st.lists(st.text("abc", min_size=1), min_size=2, unique=True))
def test_alternatives(names):
    assert expand_braces(f"x/{{{','.join(names)}}}.tar") == [f"x/{name}.tar" for name in names]


def test_links_and_devices_are_passed_over_with_a_note(tmp_path):
    data = write(
        tmp_path / "x.tar",
        ("a/1.jpg", b"1"),
        special("a/2.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        special("a/3.jpg", tarfile.LNKTYPE, "a/1.jpg"),
        special("a/4.jpg", tarfile.CHRTYPE),
        ("b/5.jpg", b"5"),
    )
    assert [record.id for record in open_source(data).records] == ["a/1.jpg", "b/5.jpg"]
    assert open_source(data).notes == ("ignored 3 links or devices in the archive: a/2.jpg, a/3.jpg, a/4.jpg",)


def sparse() -> tarfile.TarInfo:
    info = tarfile.TarInfo("a/1.jpg")
    info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "1", "GNU.sparse.numblocks": "1"}
    return info


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ([("../x.jpg", b"x")], "leads out of the archive"),
        ([("/etc/x.jpg", b"x")], "leads out of the archive"),
        ([("a/../../x.jpg", b"x")], "leads out of the archive"),
        ([("a/x.jpg", b"x"), ("./a/x.jpg", b"y")], "two members are called 'a/x.jpg'"),
        ([sparse()], "is sparse"),
        ([("x.txt", b"x")], "no images"),
        ([("x.jpg", b"x"), ("x.cls", b"\xff")], "not UTF-8"),
        ([("x.jpg", b"x"), ("x.cls", b"a\nb")], "several lines"),
        ([("x.jpg", b"x"), ("x.json", b"{")], "JSON cannot be read"),
        ([("x.jpg", b"x"), ("x.json", b'{"label": "\\ud800"}')], "the label is no text"),
        ([("x.jpg", b"x"), ("x.json", b"[" * 100_000)], "JSON cannot be read"),
        ([("x.jpg", b"x"), ("x.cls", b"9" * (1 << 20) + b"9")], "a label of 1048577 bytes"),
    ],
)
def test_hostile_members_are_refused(members, what, tmp_path):
    with pytest.raises(SourceError, match=what) as caught:
        open_source(write(tmp_path / "x.tar", *members))
    assert str(tmp_path / "x.tar") in caught.value.where


def test_a_compressed_archive_says_how_to_decompress(tmp_path):
    plain = Path(write(tmp_path / "x.tar", ("a/1.jpg", b"1")))
    for name in ("y.tar", "y.tar.gz", "y.tgz"):
        (tmp_path / name).write_bytes(gzip.compress(plain.read_bytes()))
        with pytest.raises(SourceError, match=r"compressed with gzip\. Decompress it first"):
            open_source(str(tmp_path / name))


@pytest.mark.parametrize("cut", [0, 1, 511, 512, 600, 1024, 1500, 2048])
def test_a_truncated_archive_is_refused_wherever_it_is_cut(cut, tmp_path):
    path = Path(write(tmp_path / "x.tar", ("a/1.jpg", b"1" * 512), ("b/2.jpg", b"2" * 512)))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SourceError, match="damaged or truncated"):
        open_source(str(path))


def test_a_bad_header_in_the_middle_and_a_joined_archive_are_refused(tmp_path):
    path = Path(write(tmp_path / "x.tar", ("a/1.jpg", b"1"), ("b/2.jpg", b"2")))
    whole = path.read_bytes()
    path.write_bytes(whole[:1024] + b"\xff" + whole[1025:])
    with pytest.raises(SourceError, match="bad header at byte 1024"):
        open_source(str(path))
    path.write_bytes(whole + whole)
    with pytest.raises(SourceError, match="more after its end"):
        open_source(str(path))


@given(st.integers(0, 2047), st.integers(0, 255))
def test_any_damage_gives_records_within_the_file_or_a_source_error(tmp_path_factory, position, byte):
    path = tmp_path_factory.getbasetemp() / "damaged.tar"
    write(path, ("a/1.jpg", b"1" * 300), ("b/2.jpg", b"2"))
    content = bytearray(path.read_bytes())
    content[position] = byte
    path.write_bytes(content)
    with suppress(SourceError):
        records = open_source(str(path)).records
        assert all(isinstance(read_bytes(record, 1000), bytes) for record in records)


def test_not_a_tar_and_a_record_of_one(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"hello " * 200)
    with pytest.raises(SourceError, match="damaged or truncated"):
        open_source(str(tmp_path / "x.tar"))
    data = write(tmp_path / "y.tar", ("1.jpg", b"abc"), format=tarfile.USTAR_FORMAT)
    assert open_source(data).records == (Record("1.jpg", data, span=(512, 3)),)
