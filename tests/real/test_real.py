"""Real weights on real images: features as plain PyTorch computes them, and accuracies as the references have them."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models

from benchmarks.image_sets import NETWORKS, SETS, data_folder, first_of_each, unpack, write_manifest
from benchmarks.real import TOLERANCE
from classify.dataset import read_dataset
from classify.fit import FitSpec, fit
from classify.folds import make_folds
from classify.predict import PredictSpec, predict
from extract.progress import Silent
from extract.run import extract
from extract.sources import open_source
from extract.spec import BackboneSpec, ExtractSpec
from tests.tiny import features_of, rows_of

DATA = data_folder()
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not (DATA / "weights").is_dir(), reason=f"no weights/ in {DATA}: real weights and images, see OFFSHELF_DATA"
    ),
]
PHOTOS = 12
CLASSIFIERS = {"squeezenet1_1": "classifier", "mobilenet_v2": "classifier", "resnet50": "fc"}
SPEAKERS = 6


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real")


def weights_file(network: str) -> Path:
    return DATA / "weights" / NETWORKS[network]


def spec_of(data: Path, network: str, work: Path, **changes: Any) -> ExtractSpec:
    return ExtractSpec(
        data=str(data),
        backbone=BackboneSpec(network, str(weights_file(network))),
        cache=work / "cache",
        device="cpu",
        **changes,
    )


def rows_in(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def plain_network(network: str) -> tuple[nn.Module, Any]:
    """torchvision's own network with the file's weights, and torchvision's own preprocessing of its V1 weights."""
    path = weights_file(network)
    state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    plain = models.get_model(network)
    plain.load_state_dict(state, strict=True)
    return plain.eval(), models.get_model_weights(network)["IMAGENET1K_V1"].transforms()


def plain_rows(network: str, paths: list[Path]) -> dict[str, np.ndarray]:
    """What enters the classifier, one image at a time, by file name; maps are averaged."""
    plain, transform = plain_network(network)
    seen: list[Tensor] = []
    plain.get_submodule(CLASSIFIERS[network]).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        for path in paths:
            plain(transform(Image.open(path).convert("RGB"))[None])
    rows = [each.mean(dim=(2, 3)) if each.ndim == 4 else each for each in seen]
    return {path.name: row[0].numpy() for path, row in zip(paths, rows, strict=True)}


@pytest.mark.parametrize("network", NETWORKS)
def test_features_equal_a_plain_pytorch_loop(network: str, work: Path) -> None:
    folder = unpack(DATA / "hymenoptera.tar", work)
    photos = list(first_of_each(folder, {"train": PHOTOS // 2}))
    manifest = write_manifest(folder, photos, name=f"photos-{network}.csv")

    done = extract(spec_of(manifest, network, work))

    assert (done["rows"], done["computed"], done["bad"]) == (PHOTOS, PHOTOS, 0)
    got = {Path(name).name: row for name, row in rows_of(features_of(done)).items()}
    expected = plain_rows(network, [folder / photo["path"] for photo in photos])
    assert got.keys() == expected.keys()
    for name, row in expected.items():
        assert np.linalg.norm(got[name] - row) < 1e-5 * np.linalg.norm(row), name


@pytest.fixture(scope="session", params=["squeezenet1_1", "mobilenet_v2"])
def ants(request: pytest.FixtureRequest, work: Path) -> SimpleNamespace:
    network = request.param
    folder = unpack(DATA / "hymenoptera.tar", work)
    # The folder also holds the manifests of other tests, which are no images and so no part of it.
    spec = spec_of(folder, network, work, name="hymenoptera")
    done = extract(spec)
    run = work / "runs" / network
    metrics = fit(FitSpec(done["path"], strategy="linear", out=run))
    reference = next(images.references[network] for images in SETS if images.name == "hymenoptera")
    return SimpleNamespace(spec=spec, done=done, run=run, metrics=metrics, reference=reference)


def test_ants_and_bees_are_told_apart_as_well_as_the_reference(ants: SimpleNamespace) -> None:
    assert (ants.done["rows"], ants.done["bad"]) == (397, 0)
    assert (ants.metrics["n_train"], ants.metrics["n_test"]) == (244, 153)
    assert ants.metrics["classes"] == ["ants", "bees"]
    test = ants.metrics["test"]["accuracy"]
    assert test["value"] >= ants.reference - TOLERANCE
    assert test["low"] < test["value"] < test["high"]
    assert test["low"] > ants.metrics["baseline"]


def test_a_second_extract_computes_nothing(ants: SimpleNamespace) -> None:
    again = extract(ants.spec)
    assert (again["computed"], again["reused"], again["dropped"]) == (0, 397, 0)
    assert again["features"] == ants.done["features"]


def test_predict_answers_as_the_fit_did(ants: SimpleNamespace) -> None:
    photos = tuple(record for record in open_source(ants.spec.data).records if record.split == "val")

    answers = {each["id"]: each for each in predict(PredictSpec(str(ants.run), device="cpu"), photos, Silent())}

    written = {row["id"]: row for row in rows_in(ants.run / "predictions.csv")}
    assert answers.keys() == written.keys()
    for name, row in written.items():
        assert answers[name]["label"] == row["predicted"], name
        assert answers[name]["probability"] == pytest.approx(float(row["probability"]), abs=1e-4), name


def test_every_depth_reads_digits_better_than_chance(work: Path) -> None:
    folder = unpack(DATA / "mnist.tar.gz", work)
    manifest = write_manifest(folder, list(first_of_each(folder, {"train": 30, "test": 20})))

    done = extract(spec_of(manifest, "squeezenet1_1", work, name="mnist", taps=("stages", "penultimate")))
    metrics = fit(FitSpec(done["path"], strategy="linear", out=work / "runs" / "mnist"))

    assert (metrics["n_train"], metrics["n_test"]) == (300, 200)
    assert len(metrics["per_layer"]) > 2
    assert {row["layer"] for row in metrics["per_layer"]} == set(features_of(done).layers)
    for row in metrics["per_layer"]:
        assert row["accuracy"]["low"] > 0.1, row["layer"]
    assert metrics["test"]["accuracy"]["low"] > 0.5


def test_a_speaker_is_never_on_both_sides(work: Path) -> None:
    folder = unpack(DATA / "fsdd_spectrograms.tar.gz", work)
    rows = [
        {"path": path.relative_to(folder).as_posix(), "label": digit, "group": speaker}
        for path in sorted((folder / "test").glob("*/*.png"))
        for digit, speaker, _ in [path.stem.split("_")]
    ]
    assert len({row["group"] for row in rows}) == SPEAKERS

    done = extract(spec_of(write_manifest(folder, rows), "squeezenet1_1", work, name="spectrograms"))
    metrics = fit(FitSpec(done["path"], strategy="linear", out=work / "runs" / "spectrograms"))

    assert "group by group" in metrics["split"]
    assert not [said for said in metrics["warnings"] if "in the training and in the test part" in said]
    tested = {row["id"] for row in rows_in(work / "runs" / "spectrograms" / "predictions.csv")}
    speaker_of = {row["path"]: row["group"] for row in rows}
    heard = {speaker_of[name] for name in tested}
    assert 0 < len(heard) < SPEAKERS
    assert tested == {name for name, speaker in speaker_of.items() if speaker in heard}
    train = read_dataset(features_of(done)).train
    folds, _ = make_folds(train, 5, seed=0)
    assert len(folds) == metrics["folds"] == SPEAKERS - len(heard)
    for fitted, judged in folds:
        assert not set(train.groups[fitted]) & set(train.groups[judged])


def test_what_is_known_of_speakers_is_told_from_what_is_known_of_digits(work: Path) -> None:
    folder = unpack(DATA / "fsdd_spectrograms.tar.gz", work)
    rows = [
        {"path": path.relative_to(folder).as_posix(), "label": path.stem.split("_")[0]}
        for path in sorted((folder / "test").glob("*/*.png"))
    ]
    manifest = write_manifest(folder, rows, name="speakers.csv")
    done = extract(spec_of(manifest, "squeezenet1_1", work, name="speakers"))
    metrics = fit(FitSpec(done["path"], strategy="linear", group="_([a-z]+)_", out=work / "runs" / "speakers"))

    found = metrics["grouping"]
    assert found["n_groups"] == SPEAKERS
    assert found["ungrouped"]["value"] - found["grouped"]["value"] > 0.05
    assert "are what the head knows of the groups" in found["words"]
    assert found["words"] in (work / "runs" / "speakers" / "report.html").read_text(encoding="utf-8")
