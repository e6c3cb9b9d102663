import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from classify import answering
from classify.answering import PredictSpec
from classify.bundle import read_bundle
from classify.listing import Listed
from classify.manifest import EXAMPLES, digest_of, manifest_digest
from classify.predict import evaluate_run, predict, records_of, self_test
from extract import golden
from extract.errors import BundleError, DriftError, StoreError
from extract.progress import Silent
from extract.record import Record
from extract.run import extract
from extract.runners.network import Network
from extract.store.sealed import open_sealed
from tests.tiny import put, tiny_spec
from tests.tiny_bundle import forget_examples, make_run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with `data`, `cache` and `run`."""
    return make_run(tmp_path_factory.mktemp("answering")).parent


def spec_of(run: Path, **known: Any) -> PredictSpec:
    return PredictSpec(str(run), device="cpu", workers=1, **known)


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.total: int | None = -1

    def start(self, what: str, total: int | None) -> None:
        self.total = total

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def counted(monkeypatch) -> list[int]:
    """How many images the network was shown, batch by batch; the golden ones are not counted."""
    seen: list[int] = []
    forward = Network.forward

    def count(self: Network, pixels: Tensor) -> dict[str, Tensor]:
        seen.append(len(pixels))
        return forward(self, pixels)

    monkeypatch.setattr(Network, "forward", count)
    monkeypatch.setattr(answering, "prove", lambda *_: None)
    return seen


def alike(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    """Tell whether answers are the same but for rounding."""
    rounded = [[{**each, "probability": 0, "top": 0, "novelty": 0} for each in answers] for answers in (one, other)]
    near = np.allclose(
        [each["probability"] or 0 for each in one], [each["probability"] or 0 for each in other], atol=1e-5
    )
    return rounded[0] == rounded[1] and near


def test_rows_of_a_cache_are_read_and_the_others_computed_in_order(made, tmp_path, counted, monkeypatch):
    monkeypatch.setattr(answering, "CHUNK", 5)
    data = Path(shutil.copytree(made / "data", tmp_path / "data"))
    for i, name in enumerate(["a.png", "cat/05a.png", "zz.png"]):
        put(data / name, 900 + i)
    (data / "cat" / "bad.png").write_bytes(b"no image")
    records = records_of((str(data),))
    plain = list(predict(spec_of(made / "run"), records, Silent()))
    counted.clear()
    notes = Notes()
    found = list(predict(spec_of(made / "run", cache=made / "cache"), records, notes))
    assert alike(found, plain)
    assert [answer["id"] for answer in found] == [record.id for record in records]
    assert sum(counted) == 4
    assert notes.said[-1] == f"12 of 16 images have their features in {made / 'cache'}; the others were computed"


def test_a_cache_that_has_all_needs_no_network(made, monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(answering, "open_stream", never)
    spec = spec_of(made / "run", cache=made / "cache")
    assert len(list(predict(spec, records_of((str(made / "data"),)), Silent()))) == 12
    assert evaluate_run(spec, str(made / "data"), None, Silent())["n"] == 12


@pytest.mark.parametrize("cache", ["empty", "other"])
def test_features_of_another_recipe_are_not_taken(made, tmp_path, counted, cache):
    if cache == "other":
        extract(tiny_spec(made / "data", tmp_path / "other", taps=("penultimate", "layer1")))
        counted.clear()
    notes = Notes()
    spec = spec_of(made / "run", cache=tmp_path / cache)
    assert len(list(predict(spec, records_of((str(made / "data"),)), notes))) == sum(counted) == 12
    assert "0 of 12 images" in notes.said[-1]


def test_damaged_rows_of_a_cache_are_refused(made, tmp_path):
    cache = Path(shutil.copytree(made / "cache", tmp_path / "cache"))
    [shard] = cache.glob("*/*/shards/*.h5")
    file, table = open_sealed(shard, "shard")
    file.close()
    data = bytearray(shard.read_bytes())
    data[table.parts["layers/penultimate"].offset] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreError):
        list(predict(spec_of(made / "run", cache=cache), records_of((str(made / "data"),)), Silent()))


def test_records_are_taken_only_as_they_are_answered(made):
    image, taken = str(made / "data" / "cat" / "00.png"), 0

    def endless() -> Iterator[Record]:
        nonlocal taken
        while True:
            taken += 1
            yield Record(str(taken), image)

    notes = Notes()
    answers = predict(spec_of(made / "run", batch_size=2), endless(), notes)
    assert [next(answers)["id"] for _ in range(7)] == [str(i) for i in range(1, 8)]
    assert taken < 100
    assert notes.total is None
    answers.close()


@pytest.mark.skipif(os.name != "posix", reason="only there a pipe can be asked whether more comes")
@pytest.mark.parametrize("cached", [False, True])
def test_who_waits_for_an_answer_before_the_next_path_gets_it(made, cached):
    names = [str(path) for path in sorted((made / "data").rglob("*.*"))[:3]]
    spec = spec_of(made / "run", batch_size=64, cache=made / "cache" if cached else None)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb", buffering=0) as writer:
        writer.write(os.fsencode(f"{names[0]}\n"))
        with closing(predict(spec, Listed(reader, b"\n"), Silent())) as answers:
            for name, following in zip(names, (*names[1:], "gone.png"), strict=True):
                assert next(answers)["id"] == name
                writer.write(os.fsencode(f"{following}\n"))
            writer.close()
            assert [answer["status"] for answer in answers] == ["missing"]


def test_all_probabilities_are_those_of_the_head(made):
    [record] = records_of((str(made / "data" / "cat" / "00.png"),))
    [answer] = predict(spec_of(made / "run", probabilities=True, top=1), [record], Silent())
    assert sorted(answer["probabilities"]) == ["cat", "dog"]
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert answer["probabilities"][answer["label"]] == answer["probability"]
    [bad] = predict(spec_of(made / "run", probabilities=True), [Record("gone", "/gone.png")], Silent())
    assert (bad["probabilities"], bad["status"]) == (None, "missing")


def test_a_bundle_has_examples_that_hold_no_image_of_the_users(made):
    bundle = read_bundle(made / "run" / "bundle")
    assert bundle.examples is not None
    rows = bundle.examples.rows["penultimate"]
    assert rows.shape == (len(golden.NAMES), 128)
    assert bundle.probabilities(bundle.examples.rows) == pytest.approx(bundle.examples.probabilities)
    assert self_test(spec_of(made / "run"), Silent())["examples"] == 5
    [first] = predict(spec_of(made / "run", probabilities=True), golden.RECORDS[:1], Silent())
    assert list(first["probabilities"].values()) == pytest.approx(bundle.examples.probabilities[0], abs=1e-5)


def test_a_machine_that_computes_otherwise_answers_nothing(made, monkeypatch):
    forward = Network.forward

    def drift(self: Network, pixels: Tensor) -> dict[str, Tensor]:
        return {name: rows + 0.01 * torch.ones_like(rows) for name, rows in forward(self, pixels).items()}

    monkeypatch.setattr(Network, "forward", drift)
    records = records_of((str(made / "data"),))
    for start in (
        lambda: next(predict(spec_of(made / "run"), records, Silent())),
        lambda: evaluate_run(spec_of(made / "run"), str(made / "data"), None, Silent()),
        lambda: self_test(spec_of(made / "run"), Silent()),
    ):
        with pytest.raises(DriftError, match=r"Changed since the fit: .*Nothing was answered") as caught:
            start()
        assert caught.value.where == "golden image exif-orientation.jpg"


def test_what_changed_since_the_fit_is_named(made, tmp_path, monkeypatch):
    bundle = read_bundle(made / "run" / "bundle")
    monkeypatch.setattr(
        answering.golden, "prove_stream", lambda *_: (_ for _ in ()).throw(DriftError("off", where="x"))
    )
    old = replace(bundle, versions={**bundle.versions, "torch": "0.1"})
    with pytest.raises(DriftError, match=r"off\. Changed since the fit: torch 0\.1 -> \d"):
        answering.prove(old, None)  # pyright: ignore[reportArgumentType] nothing looks at it


def test_a_bundle_of_the_version_before_answers_unproven(made, tmp_path):
    run = Path(shutil.copytree(made / "run", tmp_path / "run"))
    forget_examples(run / "bundle")
    records = records_of((str(made / "data"),))
    assert alike(*(list(predict(spec_of(each), records, Silent())) for each in (run, made / "run")))
    with pytest.raises(BundleError, match="no examples"):
        self_test(spec_of(run), Silent())


def test_other_weights_of_the_same_digests_do_not_pass(made, tmp_path):
    """Examples that another network gives are not those of this one, whatever their author's manifest says."""
    run = Path(shutil.copytree(made / "run", tmp_path / "run"))
    path = run / "bundle" / EXAMPLES
    arrays = load_file(path)
    rows = arrays["rows/penultimate"] * np.float32(1.01)
    shares = read_bundle(run / "bundle").probabilities({"penultimate": rows})
    path.unlink()
    save_file({"rows/penultimate": rows, "probabilities": shares}, path)
    said = json.loads((run / "bundle" / "bundle.json").read_text())
    said["files"][EXAMPLES] = digest_of(path)
    (run / "bundle" / "bundle.json").write_text(json.dumps(said | {"sha256": manifest_digest(said)}))
    with pytest.raises(DriftError):
        self_test(spec_of(run), Silent())


FITTING = ("sklearn", "scipy", "joblib", "threadpoolctl", "cleanlab", "skops", "pandas")
NEVER = (*FITTING, "h5py", "pyarrow", "rich", "click", "timm", "onnx")
FRESH = """
import json, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[3])))
from classify.predict import PredictSpec, predict, records_of
from extract.progress import Silent
spec = PredictSpec(sys.argv[1], device="cpu", workers=1)
for answer in predict(spec, records_of((sys.argv[2],)), Silent()):
    print(json.dumps(answer))
"""


def test_a_bundle_answers_without_what_only_fitting_needs(made):
    command = [sys.executable, "-c", FRESH, str(made / "run"), str(made / "data"), json.dumps(NEVER)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert alike(found, list(predict(spec_of(made / "run"), records_of((str(made / "data"),)), Silent())))
