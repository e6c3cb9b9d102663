import csv
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageOps
from tiny_features import blobs, noise, show

from classify.evidence import scores_of
from classify.inputs import read_inputs
from classify.probe.softmax import Ends
from classify.spec import FitSpec
from extract.progress import Silent


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_sixty_configurations_of_coin_flips_are_worth_a_coin(make_features, run):
    labels = np.random.default_rng(4).integers(0, 2, 200)
    found = run(make_features(labels, ["a", "b"], X={f"tap{n}": noise(200, 4, n) for n in range(20)}))
    selection = found["selection"]
    assert len({(row["layer"], row["transform"]) for row in found["search"] if row["stage"] == "scan"}) == 60
    assert selection["n_configurations"] > 60
    assert selection["naive"]["low"] > 0.5  # the best of many coins looks like a find
    assert selection["corrected"]["low"] < 0.5 < selection["corrected"]["high"]
    assert found["test"]["accuracy"]["low"] < 0.5 < found["test"]["accuracy"]["high"]


@pytest.mark.parametrize("n_classes", [2, 5])
def test_planted_wrong_labels_are_found_by_name(make_features, run, tmp_path, n_classes):
    true, rng = np.arange(400) % n_classes, np.random.default_rng(1)
    wrong = rng.permutation(400)[:20]
    labels = true.copy()
    labels[wrong] = (labels[wrong] + 1) % n_classes
    features = make_features(labels, list("abcde")[:n_classes], X={"x": blobs(true, 12)})
    metrics = run(features, hold_out=0.1)
    tested = {row["id"] for row in table(tmp_path / "run" / "predictions.csv")}
    planted = {features.ids[row] for row in wrong} - tested
    rows = table(tmp_path / "run" / "findings" / "suspect_labels.csv")
    found = {row["id"] for row in rows}
    assert len(found & planted) >= 0.6 * len(planted)
    assert len(found & planted) >= 0.6 * len(found)
    assert metrics["hygiene"]["label_issues"]["n"] == len(found)
    names = dict(zip(features.ids, np.array(features.label_names)[true], strict=True))
    right = [row["suggested"] == names[row["id"]] for row in rows if row["id"] in planted]
    assert all(right)


TWINS = {30: 0, 31: 1, 32: 2, 40: 10, 41: 11, 42: 12, 43: 13}
CROSSING = {40, 41, 42, 43}
HOW = [ImageOps.mirror, lambda image: image.point(lambda value: min(255, value + 12)), lambda image: image.copy()]


@pytest.fixture
def with_twins(make_features):
    """Pictures of which some are others mirrored, brighter or equal; four of them lie in the test part."""
    labels = np.arange(60) % 2
    X = np.abs(noise(60, 64))
    for row, other in TWINS.items():
        X[row] = X[other] + 0.02 * noise(1, 64, seed=row)[0]
    features = make_features(labels, ["a", "b"], X={"x": X}, splits=["train"] * 40 + ["test"] * 20)
    return show(features, {row: (other, HOW[at % 3]) for at, (row, other) in enumerate(TWINS.items())})


def test_planted_near_duplicates_are_found_named_and_told_where_they_cross_the_split(with_twins, run, tmp_path):
    found = run(with_twins, duplicates="auto")["hygiene"]["duplicates"]
    assert (found["searched"], found["confirmed_by"]) == (True, "pixels")
    assert (found["n_pairs"], found["n_groups"]) == (7, 7)
    assert (found["n_cross_split"], found["n_leaked"]) == (4, 4)
    rows = table(tmp_path / "run" / "findings" / "duplicates.csv")
    ids = with_twins.ids
    assert {(row["id_a"], row["id_b"]) for row in rows} == {(ids[other], ids[row]) for row, other in TWINS.items()}
    assert [row["split_a"] == row["split_b"] for row in rows] == [False] * 4 + [True] * 3
    assert {row["kind"] for row in rows} == {"near", "exact"}
    answers = table(tmp_path / "run" / "predictions.csv")
    fresh = [row["label"] == row["predicted"] for row in answers if ids.index(row["id"]) not in CROSSING]
    assert found["without_cross_split"]["accuracy"]["value"] == pytest.approx(np.mean(fresh))
    page = (tmp_path / "run" / "report.html").read_text()
    assert "4 test images have a twin" in page
    assert "data:image/jpeg;base64," in page


def test_near_duplicates_stay_in_one_fold(with_twins):
    inputs = read_inputs(FitSpec("tiny", cv=4, jobs=1), with_twins, Silent())
    fold = np.full(40, -1)
    for number, (_, test) in enumerate(inputs.task.folds):
        fold[test] = number
    assert all(fold[row] == fold[other] for row, other in TWINS.items() if row < 40)
    assert inputs.data.n_named_groups == 0


def test_without_twins_there_is_nothing_to_leave_out(make_features, run):
    found = run(make_features(np.arange(40) % 2, ["a", "b"]))["hygiene"]["duplicates"]
    assert (found["n_leaked"], found["without_cross_split"]) == (0, None)


@pytest.fixture
def uneven(make_features):
    """Nine images of one class to two of the other, which overlap."""
    labels = np.repeat([0, 1], [180, 40])
    return make_features(labels, ["common", "rare"], X={"x": blobs(labels, 6, distance=0.4)})


def test_uneven_classes_are_led_by_the_balanced_accuracy(uneven, run, tmp_path):
    found = run(uneven)
    assert found["imbalance"] == {"ratio": 4.5, "leads": "balanced_accuracy"}
    assert found["metric"] == found["selection"]["metric"] == found["learning_curve"]["metric"] == "balanced_accuracy"
    assert found["test"]["balanced_accuracy"]["value"] < found["test"]["accuracy"]["value"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "right, class by class" in page
    assert "4.5 times the images of the smallest" in page


def test_a_metric_that_was_asked_for_is_kept(uneven, run):
    found = run(uneven, metric="accuracy")
    assert found["metric"] == found["selection"]["metric"] == "accuracy"
    assert found["imbalance"]["leads"] == "balanced_accuracy"


def test_three_to_one_is_even_enough(make_features, run):
    labels = np.repeat([0, 1], [60, 20])
    assert run(make_features(labels, ["a", "b"]))["metric"] == "accuracy"


def test_weights_of_classes_find_more_of_the_rare_one(uneven, run):
    def recall(**options) -> float:
        found = run(uneven, metric="accuracy", **options)
        assert found["class_weight"] == options.get("class_weight")
        return next(row["recall"] for row in found["per_class"] if row["class"] == "rare")

    assert recall(class_weight="balanced") > recall()


def test_what_did_not_converge_is_told(make_features, run, monkeypatch):
    monkeypatch.setattr("classify.solvers.softmax.Ends", partial(Ends, max_iter=1))
    found = run(make_features(np.arange(60) % 2, ["a", "b"]))
    assert any("configurations did not converge, the chosen one among them" in said for said in found["warnings"])
    assert any("the last fit, on all training images, did not converge" in said for said in found["warnings"])
    assert not any(row["converged"] for row in found["search"] if row["stage"] == "refine")


def test_names_without_images_and_in_another_order_change_no_answer(make_features, run, tmp_path):
    labels = np.array([3, 1])[np.arange(60) % 2]  # as of a cache whose classes are a part of what its source has
    features = make_features(labels, ["none", "zebra", "nothing", "ant"], X={"x": blobs(labels, 6)})
    assert run(features)["classes"] == ["ant", "zebra"]
    rows = table(tmp_path / "run" / "predictions.csv")
    assert {row["label"] for row in rows} == {"ant", "zebra"}
    assert all(row["predicted"] == row["label"] == ["ant", "zebra"][int(row["id"][:4]) % 2] for row in rows)


@dataclass
class Recorded:
    """A bundle and features in one: rows that are scored, and how many at a time."""

    X: np.ndarray
    reads: list[int]
    layers: tuple[str, ...] = ("x",)

    def read(self, layer: str, rows: np.ndarray) -> np.ndarray:
        self.reads.append(len(rows))
        return self.X[rows]

    def scores(self, blocks: dict[str, np.ndarray]) -> np.ndarray:
        return blocks["x"][:, :2].astype(np.float64)


def test_many_test_rows_are_scored_a_block_at_a_time():
    X = noise(10_000, 1000)
    both, rows = Recorded(X, []), np.arange(10_000)[::-1]
    np.testing.assert_array_equal(scores_of(both, both, rows), X[rows, :2])
    assert sum(both.reads) == 10_000 + 1  # one to know their width
    assert max(both.reads) * 1000 * 8 <= 32 << 20
