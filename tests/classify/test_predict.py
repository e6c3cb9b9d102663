import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from classify.bundle import Bundle, write_bundle
from classify.conformal import Abstain, Conformal
from classify.openset import fit_open_set
from classify.predict import CSV_FIELDS, PredictSpec, csv_row, evaluate_run, predict, records_of
from classify.scoring import join
from extract.progress import Silent
from extract.run import extract
from extract.runners.network import Network
from extract.store import FeatureSet
from tests.tiny import features_of, tiny_spec
from tests.tiny_bundle import forget_examples, learn, make_run


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    """A folder with `data`, 12 images of two classes, and `run`, a run on them."""
    return make_run(tmp_path_factory.mktemp("predict")).parent


@pytest.fixture
def overflowing(monkeypatch) -> None:
    """Have the second row of every batch be beyond float32."""
    forward = Network.forward

    def overflow(self: Network, pixels: Tensor) -> dict[str, Tensor]:
        rows = forward(self, pixels)
        rows["penultimate"][1] = torch.inf
        return rows

    monkeypatch.setattr(Network, "forward", overflow)


@pytest.mark.usefixtures("overflowing")
def test_features_that_are_no_numbers_are_a_bad_row(fitted, tmp_path):
    run = shutil.copytree(fitted / "run", tmp_path / "run")
    forget_examples(run / "bundle")
    spec = PredictSpec(str(run), device="cpu", workers=1, batch_size=4)
    answers = list(predict(spec, records_of((str(fitted / "data"),)), Silent()))
    assert [answer["status"] for answer in answers] == (["ok", "not finite", "ok", "ok"] * 3)
    assert answers[1]["label"] is None
    assert answers[1]["reason"] == "features beyond the range of float32"
    assert evaluate_run(spec, str(fitted / "data"), None, Silent())["n_bad"] == 3


def test_neither_batch_size_nor_workers_change_an_answer(fitted):
    records = records_of((str(fitted / "data"),))
    first, *others = (
        list(
            predict(
                PredictSpec(str(fitted / "run"), device="cpu", batch_size=batch, workers=workers), records, Silent()
            )
        )
        for batch, workers in ((1, 1), (5, 3), (None, 2))
    )
    assert [answer["id"] for answer in first] == [record.id for record in records]
    for other in others:
        for one, same in zip(first, other, strict=True):
            assert {**same, "probability": 0, "top": []} == {**one, "probability": 0, "top": []}
            assert same["probability"] == pytest.approx(one["probability"], abs=1e-5)


@pytest.mark.usefixtures("no_thread_left")
def test_answers_that_nobody_waits_for_leave_no_thread(fitted):
    spec = PredictSpec(str(fitted / "run"), device="cpu", workers=1, batch_size=1)
    answers = predict(spec, records_of((str(fitted / "data"),)), Silent())
    assert next(answers)["status"] == "ok"
    answers.close()


def test_a_run_on_many_views_predicts_from_the_centre(fitted, tmp_path):
    spec = tiny_spec(fitted / "data", tmp_path / "cache", taps=("penultimate", "layer2:map"), views=3)
    learn(features_of(extract(spec)), tmp_path / "run")
    records = records_of((str(fitted / "data"),))
    seen, plain = (
        list(predict(PredictSpec(str(run), device="cpu"), records, Silent()))
        for run in (tmp_path / "run", fitted / "run")
    )
    assert [answer["label"] for answer in seen] == [answer["label"] for answer in plain]
    assert [answer["probability"] for answer in seen] == pytest.approx([a["probability"] for a in plain], abs=1e-3)


@pytest.mark.parametrize("one_grouped", [False, True])
def test_copies_do_not_narrow_an_interval(fitted, tmp_path, one_grouped):
    lines = ["path,label,group"]
    for path in sorted((fitted / "data").rglob("*.*")):
        for copy in range(5):
            name = f"{path.parent.name}-{copy}-{path.name}"
            shutil.copy(path, tmp_path / name)
            lines.append(f"{name},{path.parent.name},{'g' if one_grouped and len(lines) == 1 else ''}")
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    spec = PredictSpec(str(fitted / "run"), device="cpu", workers=1)
    once = evaluate_run(spec, str(fitted / "data"), None, Silent())["metrics"]["accuracy"]
    copied = evaluate_run(spec, str(tmp_path / "m.csv"), None, Silent())["metrics"]["accuracy"]
    assert copied["value"] == pytest.approx(once["value"])
    # A little wider: how alike the images of a group are is an estimate, by Student's distribution.
    assert 0.95 < (copied["high"] - copied["low"]) / (once["high"] - once["low"]) < 1.25


LAYERS = ("penultimate", "layer1")


@pytest.fixture(scope="module")
def two(fitted, tmp_path_factory) -> FeatureSet:
    """The features of two taps."""
    done = extract(tiny_spec(fitted / "data", tmp_path_factory.mktemp("two"), taps=("layer1", "penultimate")))
    return features_of(done)


def blocks_of(features: FeatureSet) -> dict[str, np.ndarray]:
    return {layer: features.read(layer) for layer in LAYERS}


def write(folder: Path, features: FeatureSet, **known: Any) -> Bundle:
    """Write a bundle on two taps joined, with all thresholds for one label an image."""
    blocks = blocks_of(features)
    X = join([blocks[layer] for layer in LAYERS])
    arrays = {
        "mean": X.mean(axis=0).astype(np.float64),
        "scale": np.full(X.shape[1], 1e-3),
        "coef": np.random.default_rng(0).normal(size=(3, X.shape[1])),
        "intercept": np.zeros(3),
    }
    bundle = Bundle(
        recipe=features.recipe,
        layers=LAYERS,
        transform="std",
        head="logistic",
        kind="linear",
        params={},
        classes=["cat", "dog", "eel"],
        temperature=40.0,
        arrays=arrays,
        conformal=Conformal(0.1, (0.7, 0.7, 0.7), False, 99),
        abstain=Abstain(0.6, 0.9, "accuracy", 0.5, 0.9),
        open_set=replace(fit_open_set(X, np.zeros(12), None, n_seen=12), k=1, threshold=0.001),
    )
    bundle = replace(bundle, **known)
    write_bundle(folder, bundle, weights=features.weights_path, blocks=blocks, expected=bundle.scores(blocks))
    return bundle


def answers_of(folder: Path, data: Path, **known: Any) -> list[dict[str, Any]]:
    return list(predict(PredictSpec(str(folder), device="cpu", workers=1, **known), records_of((str(data),)), Silent()))


def test_an_answer_says_what_the_thresholds_let_it_say(fitted, two, tmp_path):
    bundle = write(tmp_path / "bundle", two)
    answers = answers_of(tmp_path / "bundle", fitted / "data", top=3)
    order = {Path(name).as_posix(): row for row, name in enumerate(two.ids)}
    at = [next(row for name, row in order.items() if answer["id"].endswith(name)) for answer in answers]
    expected = bundle.answer({layer: X[at] for layer, X in blocks_of(two).items()})
    assert expected.sets is not None
    assert expected.novelty is not None
    for row, answer in enumerate(answers):
        shares = {each["label"]: each["probability"] for each in answer["top"]}
        assert list(shares.values()) == sorted(shares.values(), reverse=True)
        assert [shares[name] for name in bundle.classes] == pytest.approx(expected.probabilities[row], abs=1e-4)
        assert set(answer["set"]) == {
            name for name, kept in zip(bundle.classes, expected.sets[row], strict=True) if kept
        }
        assert answer["set"] == sorted(answer["set"], key=lambda name: -shares[name])
        assert answer["abstained"] == (answer["probability"] < 0.6)
        assert answer["novelty"] < 0.5  # each image was seen, and its nearest is itself
        assert answer["known"]
        assert "labels" not in answer
    assert {answer["abstained"] for answer in answers} == {True, False}
    assert {len(answer["set"]) for answer in answers} >= {1}


def test_the_users_threshold_goes_before_that_of_the_run(fitted, two, tmp_path):
    write(tmp_path / "bundle", two)
    assert not any(
        answer["abstained"] for answer in answers_of(tmp_path / "bundle", fitted / "data", abstain_below=0.0)
    )
    assert all(answer["abstained"] for answer in answers_of(tmp_path / "bundle", fitted / "data", abstain_below=1.0))


def test_an_image_unlike_all_is_said_to_be(fitted, two, tmp_path):
    bundle = write(tmp_path / "bundle", two)
    assert bundle.open_set is not None
    away = replace(bundle.open_set, rows=-bundle.open_set.rows)
    write(tmp_path / "bundle", two, open_set=away)
    assert not any(answer["known"] for answer in answers_of(tmp_path / "bundle", fitted / "data"))


def test_without_thresholds_nothing_is_said_of_them(fitted, two, tmp_path):
    write(tmp_path / "bundle", two, conformal=None, abstain=None, open_set=None)
    for answer in answers_of(tmp_path / "bundle", fitted / "data"):
        assert (answer["set"], answer["novelty"], answer["known"], answer["abstained"]) == (None, None, None, False)


def test_several_labels_an_image_are_listed_and_a_bad_image_has_none(fitted, two, tmp_path):
    limits = (0.9, 0.5, 0.1)
    known = {"task": "multi", "label_thresholds": limits, "conformal": None, "abstain": None}
    bundle = write(tmp_path / "bundle", two, **known)
    data = Path(shutil.copytree(fitted / "data", tmp_path / "data"))
    (data / "cat" / "zz.png").write_bytes(b"no image")
    answers = answers_of(tmp_path / "bundle", data)
    bad = next(answer for answer in answers if answer["id"].endswith("zz.png"))
    assert (bad["labels"], bad["set"], bad["novelty"], bad["known"]) == ([], None, None, None)
    assert len({len(answer["labels"]) for answer in answers}) > 1
    for answer in answers:
        shares = {each["label"]: each["probability"] for each in answer["top"]}
        over = [name for name in shares if shares[name] >= limits[bundle.classes.index(name)]]
        assert answer["labels"] == over


def test_several_labels_are_measured_as_sets(fitted, two, tmp_path):
    known = {"task": "multi", "label_thresholds": (0.5, 0.5, 0.5), "conformal": None, "abstain": None}
    write(tmp_path / "bundle", two, **known)
    labels = {answer["id"]: answer["labels"] for answer in answers_of(tmp_path / "bundle", fitted / "data")}
    cells = {name: "|".join(found) or "-" for name, found in labels.items()}
    cells |= {next(iter(cells)): "gnu|cat"}
    (tmp_path / "m.csv").write_text("path,label\n" + "".join(f"{name},{cell}\n" for name, cell in cells.items()))
    spec = PredictSpec(str(tmp_path / "bundle"), device="cpu", workers=1)
    found = evaluate_run(spec, str(tmp_path / "m.csv"), Path("/"), Silent())
    assert found["metrics"]["subset_accuracy"]["value"] == pytest.approx(11 / 12)
    assert found["unseen_classes"] == ["gnu"]
    assert (found["n"], found["n_bad"]) == (12, 0)
    assert [each["class"] for each in found["per_class"]] == ["cat", "dog", "eel"]
    json.dumps(found, allow_nan=False)


def test_a_table_has_a_column_for_everything_that_is_said(fitted, two, tmp_path):
    write(tmp_path / "bundle", two)
    out = io.StringIO()
    table = csv.DictWriter(out, CSV_FIELDS)
    table.writeheader()
    answers = answers_of(tmp_path / "bundle", fitted / "data")
    table.writerows(csv_row(answer) for answer in answers)
    table.writerow(csv_row({**answers[0], "labels": ["cat", "a|b"]}))
    *rows, several = csv.DictReader(io.StringIO(out.getvalue()))
    assert [json.loads(row["set"]) for row in rows] == [answer["set"] for answer in answers]
    assert [float(row["novelty"]) for row in rows] == [answer["novelty"] for answer in answers]
    assert {row["labels"] for row in rows} == {""}
    assert json.loads(several["labels"]) == ["cat", "a|b"]


def test_evaluating_tells_what_was_promised_and_what_came(fitted, two, tmp_path):
    write(tmp_path / "bundle", two)
    spec = PredictSpec(str(tmp_path / "bundle"), device="cpu", workers=1)
    found = evaluate_run(spec, str(fitted / "data"), None, Silent())
    answers = answers_of(tmp_path / "bundle", fitted / "data")
    labels = [Path(answer["id"]).parent.name for answer in answers]
    held = np.mean([label in answer["set"] for label, answer in zip(labels, answers, strict=True)])
    assert found["conformal"]["coverage"]["value"] == pytest.approx(held)
    assert found["conformal"]["alpha"] == 0.1
    assert found["conformal"]["mean_size"] == pytest.approx(np.mean([len(answer["set"]) for answer in answers]))
    given = [answer for answer in answers if not answer["abstained"]]
    assert found["abstain"]["coverage"]["value"] == pytest.approx(len(given) / len(answers))
    assert found["novel"] == 0
    assert 0 <= found["calibration"]["ece"] <= 1
    json.dumps(found, allow_nan=False)
    write(tmp_path / "bundle", two, conformal=None, open_set=None)
    plain = evaluate_run(spec, str(fitted / "data"), None, Silent())
    assert (plain["conformal"], plain["novel"]) == (None, None)
