"""Manifests that lead astray, archives that want to be unpacked, pickles that want to be run."""

import ast
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch

from benchmarks.faults.harness import Numbers, settled, shards_below, small_bundle, warm
from classify.bundle import FILES, read_bundle
from classify.predict import PredictSpec, predict
from extract import golden
from extract.backbones import read_state
from extract.errors import OffshelfError, SourceError
from extract.forward import build_extractor
from extract.progress import Silent
from extract.sources import open_source, read_bytes
from extract.store import FeatureSet
from extract.store.known import read_known
from extract.store.reader import weights_are_whole
from extract.store.shards import read_shard
from extract.store.verify import verify
from tests.attacks.test_hostile_weights import Canary
from tests.extract.sources import test_manifest, test_tar
from tests.tiny import tiny_folder, tiny_spec

ROOT = Path(__file__).resolve().parents[2]


def cases_of(test: Any) -> list[tuple[Any, ...]]:
    """Return the cases that a test is parametrized with."""
    [mark] = [mark for mark in test.pytestmark if mark.name == "parametrize"]
    return list(mark.args[1])


QUIRKS = {
    "\ufeffpath,label\r\na.jpg,x\r\n": 1,
    "path,label\n\n\na.jpg,x\n\nb.jpg,y\n": 2,
    'path,label\n"a, b.jpg",x\n': 1,
    'path,label\n"a ""b"".jpg",x\n': 1,
    "label,path\nx,a.jpg\n": 1,
    "path,label,split\na.jpg,x,Valid\nb.jpg,y,TRAIN\n": 2,
    "path,label\n./a/../a.jpg,x\n": None,
    "path,label\ncafé.jpg,x\n": 1,
    "path,label\n a.jpg , x \n": 1,
    "path,width,label\na.jpg,7,x\n": 1,
    "path,label\rA.jpg,x\r": 1,
    "path,label\n" + "".join(f"{i}.jpg,x\n" for i in range(1002)): 1002,
}
"""Manifests that are odd, and the rows that they give; None where they are refused, too."""


def manifest(folder: Path) -> Numbers:
    """Read manifests that escape, or are odd: refused by line, or all of their rows are there."""
    root = folder / "root"
    root.mkdir()
    (root / "out").symlink_to(folder)
    (root / "out.jpg").symlink_to("/etc/passwd")
    refusals = [case[0] for case in cases_of(test_manifest.test_a_bad_row_is_refused_by_its_line)]
    headers = [case[0] for case in cases_of(test_manifest.test_a_bad_header_is_refused)]
    with_line = sum(_refusal(root, text).count(", line ") for text in refusals)
    refused = sum(bool(_refusal(root, text)) for text in (*refusals, *headers))
    right = sum(_rows(root, text) == rows for text, rows in QUIRKS.items())
    n = len(refusals) + len(headers) + len(QUIRKS)
    counted = {"n": n, "refused": refused, "naming_the_line": with_line, "quirks": len(QUIRKS), "quirks_right": right}
    named = with_line == len(refusals)
    return {**counted, "passed": refused == len(refusals) + len(headers) and named and right == len(QUIRKS)}


def _refusal(root: Path, text: str) -> str:
    """Return where the error is that a manifest gives; "" where it is read."""
    try:
        open_source(test_manifest.manifest(root, text))
    except SourceError as error:
        return error.where
    return ""


def _rows(root: Path, text: str) -> int | None:
    try:
        records = open_source(test_manifest.manifest(root, text)).records
    except SourceError:
        return None
    return len(records) if all(record.path.startswith(f"{root}/") for record in records) else -1


def tar(folder: Path) -> Numbers:
    """Open archives with hostile members: refused, and no file appears anywhere near."""
    members = [case[0] for case in cases_of(test_tar.test_hostile_members_are_refused)]
    links = [test_tar.special("a/2.jpg", kind, "/etc/passwd") for kind in (b"1", b"2", b"3", b"4", b"6")]
    inside = folder / "deep" / "folder"
    inside.mkdir(parents=True)
    refused = created = linked = 0
    for each in members:
        data = test_tar.write(inside / "x.tar", *each)
        before = _names(folder)
        refused += _is_refused(lambda data=data: open_source(data))
        created += len(_names(folder) - before)
    data = test_tar.write(inside / "x.tar", ("a/1.jpg", b"1"), *links)
    before = _names(folder)
    records = open_source(data).records
    linked = len(records) - sum(read_bytes(record, 10) == b"1" for record in records)
    created += len(_names(folder) - before)
    counted = {"n": len(members) + len(links), "refused": refused, "links_passed_over": len(links) - linked}
    return {**counted, "files_created": created, "passed": refused == len(members) and not created + linked}


def _names(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def _is_refused(read: Callable[[], object]) -> bool:
    try:
        read()
    except OffshelfError:
        return True
    return False


def payloads(canary: Canary) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Yield ways to write a file that creates a folder when what it says is run."""
    for protocol in (0, 2, 4, 5):
        yield f"pickle {protocol}", lambda path, p=protocol: path.write_bytes(pickle.dumps({"a": canary}, p))
    yield "bare pickle", lambda path: path.write_bytes(pickle.dumps(canary))
    yield "torch zip", lambda path: torch.save({"fc.weight": canary}, path)
    yield "torch legacy", lambda path: torch.save({"a": canary}, path, _use_new_zipfile_serialization=False)
    yield "state dict", lambda path: torch.save({"state_dict": {"a": torch.zeros(1), "b": canary}}, path)
    yield "joblib", lambda path: joblib.dump({"a": canary}, path)
    yield "npy of objects", lambda path: np.save(path.open("wb"), np.array([canary], object), allow_pickle=True)


def pickle_canary(folder: Path) -> Numbers:
    """Put pickles in the place of every file that is read, the environment asking to run them; none is run."""
    warm(4)
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
    os.environ["HDF5_PLUGIN_PATH"] = str(folder)
    sung = folder / "canary"
    bundle = small_bundle(settled(tiny_folder(folder / "pets", per_class=6)), folder)
    places = _loaders(bundle, next((folder / "cache").glob("*/*/features.h5")))
    n = refused = executed = 0
    for _, write in payloads(Canary(sung)):
        for path, read in places:
            before = path.read_bytes() if path.exists() else None
            write(path)
            refused += _is_refused(read)
            executed += sung.exists()
            n += 1
            shutil.rmtree(sung, ignore_errors=True)
            path.unlink() if before is None else path.write_bytes(before)
    write(folder / "proof")
    np.load(folder / "proof", allow_pickle=True)
    hits = list(scan(ROOT))
    counted = {"n": n, "loaders": len(places), "executed": executed, "refused": refused, "scan_hits": len(hits)}
    found = {"scan_found": hits} if hits else {}
    return {**counted, **found, "passed": not executed and not hits and sung.exists()}


def _loaders(bundle: Path, index: Path) -> list[tuple[Path, Callable[[], object]]]:
    """List the files that are read, each with what reads it."""
    cache, shard = index.parents[2], shards_below(index.parents[2])[0]
    features = FeatureSet(index)
    extractor = build_extractor(tiny_spec("", cache, taps=("penultimate",)))
    weights = [bundle.parent / f"weights{suffix}" for suffix in (".pt", ".pth", ".safetensors", ".bin", ".pkl", "")]
    known = index.parents[1] / "contents.h5"
    return [
        *((path, lambda path=path: read_state(path)) for path in weights),
        *((bundle / name, lambda: read_bundle(bundle)) for name in (*FILES, "bundle.json")),
        (bundle / FILES[0], lambda: predict(PredictSpec(str(bundle), device="cpu"), (), Silent())),
        (index, lambda: FeatureSet(index)),
        (shard, lambda: read_shard(shard, features.recipe.key)),
        (shard, lambda: FeatureSet(index).read("penultimate")),
        (known, lambda: read_known(known)),
        (index.with_name("golden.h5"), lambda: golden._stored(index.with_name("golden.h5"), extractor)),
        (index.with_name("weights.safetensors"), lambda: weights_are_whole(features.weights_path, features.recipe)),
        (index.with_name("recipe.json"), lambda: verify((), cache)),
    ]


RUN = {"eval", "exec", "compile", "__import__", "execfile"}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "yaml", "skops"}
CALLS = {"os.system", "os.popen", "joblib.load", "torch.jit.load", "torch.package.PackageImporter"}
"""What could run what a file says."""


def scan(root: Path) -> Iterator[str]:
    """Yield where the program could run what a file says: FILE:LINE what."""
    for path in [
        root / "pipeline.py",
        *sorted((root / "extract").rglob("*.py")),
        *sorted((root / "classify").rglob("*.py")),
    ]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if found := _could_run(node):
                yield f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)} {found}"


def _could_run(node: ast.AST) -> str:
    """Name what a piece of a program does that could run a file; "" for nothing."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        return ", ".join(name for name in names if name.partition(".")[0] in MODULES)
    if not isinstance(node, ast.Call):
        return ""
    name, given = ast.unparse(node.func), {each.arg: ast.unparse(each.value) for each in node.keywords}
    lax = (name == "torch.load" and given.get("weights_only") != "True") or (
        name in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False"
    )
    return name if lax or name in RUN | CALLS or given.get("shell", "False") != "False" else ""
