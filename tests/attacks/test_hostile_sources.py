"""Hostile manifests, archives and folders: refused, or rows with a reason; and nothing that is loaded can run."""

import ast
import io
import os
import tarfile
from pathlib import Path

import pytest

from extract.errors import SourceError
from extract.record import Status
from extract.run import dry_run, extract
from tests.tiny import features_of, files_in, put, tiny_folder, tiny_spec

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(tmp_path) -> Path:
    return tiny_folder(tmp_path / "safe/pets")


def refused(data: Path, tmp_path: Path) -> str:
    """What an extraction says that must be refused; nothing may be written, neither to the cache nor elsewhere."""
    before = files_in(tmp_path)
    with pytest.raises(SourceError) as raised:
        extract(tiny_spec(data, tmp_path / "cache"))
    assert files_in(tmp_path) == before
    return str(raised.value)


def test_one_unclosed_quote_swallows_no_rows(data, tmp_path):
    rows = [f"{path.relative_to(data)},{path.parent.name}" for path in sorted(data.rglob("*.*"))]
    manifest = data / "list.csv"
    manifest.write_text("path,label\n" + "\n".join([*rows[:2], '"' + rows[2], *rows[3:]]) + "\n")
    assert "line 4" in refused(manifest, tmp_path)
    manifest.write_text("path,label\n" + "\n".join(rows) + "\n")
    assert dry_run(tiny_spec(manifest, tmp_path / "cache"))["rows"] == len(rows)


@pytest.mark.parametrize(
    "path",
    ["../../secret.png", "/etc/passwd", "cat/../../../secret.png", "link/secret.png", "file:///etc/passwd", "a\0b"],
)
def test_a_manifest_cannot_leave_its_root(data, tmp_path, path):
    put(tmp_path / "secret.png", 1)
    (data / "link").symlink_to(tmp_path)
    (data / "list.csv").write_text(f"path,label\ncat/00.png,cat\n{path},dog\n")
    assert "line 3" in refused(data / "list.csv", tmp_path)


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    content = b"hostile" if kind == tarfile.REGTYPE else b""
    info.size = len(content)
    return info, content


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["../../escaped.png", "/escaped.png", "cat/../../escaped.png"])
def test_members_cannot_leave_the_archive(tmp_path, name):
    archive = tar_of(tmp_path / "pets.tar", member("cat/a.png"), member(name))
    assert "leads out of the archive" in refused(archive, tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_links_and_devices_in_an_archive_are_no_images(tmp_path, kind):
    archive = tar_of(tmp_path / "pets.tar", member("cat/a.png"), member("cat/b.png", kind, "/etc/passwd"))
    before = files_in(tmp_path)
    done = extract(tiny_spec(archive, tmp_path / "cache"))
    assert features_of(done).ids == ["cat/a.png"]
    new = set(files_in(tmp_path)) - set(before)
    assert all(name.startswith("cache/") for name in new)


def test_what_is_no_file_costs_its_row_and_no_time(data, tmp_path):
    os.mkfifo(data / "cat/pipe.png")
    (data / "cat/terminal.png").symlink_to("/dev/zero")
    (data / "cat/itself.png").symlink_to("itself.png")
    (data / "dog/folder.png").mkdir()
    features = features_of(extract(tiny_spec(data, tmp_path / "cache")))
    bad = {name: status for name, status in zip(features.ids, features.status.tolist(), strict=True) if status}
    assert bad == dict.fromkeys(("cat/itself.png", "cat/pipe.png", "cat/terminal.png"), Status.MISSING)


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def says(call: ast.Call, name: str, value: object) -> bool:
    return any(k.arg == name and isinstance(k.value, ast.Constant) and k.value.value is value for k in call.keywords)


def runs_code(name: str, call: ast.Call) -> bool:
    """Whether a call can run what is in a file or a text."""
    return (
        name.split(".")[0] in ("pickle", "dill", "cloudpickle", "marshal", "shelve", "yaml")
        or name in ("eval", "exec", "compile", "__import__", "joblib.load", "os.system", "os.popen")
        or (name == "torch.load" and not says(call, "weights_only", True))
        or (name in ("np.load", "numpy.load") and not says(call, "allow_pickle", False))
        or name.startswith(("torch.jit.load", "torch.export.load", "torch.hub.load"))
        or says(call, "shell", True)
    )


def test_nothing_that_is_loaded_can_run():
    modules = [ROOT / "pipeline.py", *(ROOT / "extract").rglob("*.py"), *(ROOT / "classify").rglob("*.py")]
    found = [
        f"{path.name}: {name}"
        for path in modules
        for name, call in calls(ast.parse(path.read_text("utf-8")))
        if runs_code(name, call)
    ]
    assert found == ["sklearn_joblib.py: joblib.load"]  # behind --trust: tests/classify/test_sklearn_joblib.py
    assert len(modules) > 50


@pytest.mark.parametrize(
    "text",
    [
        "pickle.load(f)",
        "eval(x)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f)",
        "run(x, shell=True)",
    ],
)
def test_what_could_run_is_seen(text):
    [(name, call)] = calls(ast.parse(text))
    assert runs_code(name, call)
