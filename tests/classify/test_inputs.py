from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_features import blobs, noise, show

from classify.heads import find_head
from classify.inputs import read_inputs
from classify.solvers import check_kept, few_rows
from classify.spec import FitSpec
from classify.tuning import TuneSpec
from extract.errors import FitError
from extract.progress import Silent


@pytest.fixture
def pictured(make_features):
    """Features that say nothing, so that there are errors to be shown."""
    return show(make_features(np.arange(40) % 2, ["a", "b"], X={"penultimate": noise(40, 8)}), {})


def change_all(features) -> None:
    for id_ in features.ids:
        path = Path(features.source) / id_
        path.write_bytes(path.read_bytes() + b"more")


def test_images_that_are_not_there_are_a_note_and_no_failure(make_features, run):
    features = make_features(np.arange(40) % 2, ["a", "b"])
    for options in ({}, {"data": "nowhere"}):
        notes = run(features, duplicates="auto", **options)["notes"]
        assert any("the images are not found" in note and "--data DATA" in note for note in notes)
        assert any("told by features alone" in note for note in notes)


def test_of_images_that_are_gone_no_more_is_said_than_helps(make_features, run):
    features = make_features(np.arange(40) % 2, ["a", "b"])
    [said] = [note for note in run(features, data="nowhere")["notes"] if "not found" in note]
    assert said == (
        "the images are not found, and not looked at (nowhere: no such file or folder). "
        "Say where they are with --data DATA"
    )


def test_folds_beyond_those_that_there_are_are_told_of(make_features, run):
    features = make_features(np.arange(40) % 2, ["a", "b"])
    spec = FitSpec("tiny", strategy="tail", cv=3, jobs=1, duplicates="off", tune=TuneSpec(folds=9))
    notes = read_inputs(spec, features, Silent()).notes
    assert "--folds-trained 9: there are 3 folds, all of which are answered for" in notes
    spec = replace(spec, tune=TuneSpec(folds=3))
    assert not any("--folds-trained" in note for note in read_inputs(spec, features, Silent()).notes)


def test_stages_are_a_word_of_the_extraction(make_features, run):
    features = make_features(np.arange(40) % 2, ["a", "b"])
    with pytest.raises(FitError, match="'stages' is for extract") as caught:
        run(features, layers=("stages",))
    assert caught.value.remedy == "Leave --layer out to compare all of them: penultimate"


def test_images_that_were_moved_are_found_where_they_are_said_to_be(pictured, run, tmp_path):
    moved = Path(pictured.source).rename(tmp_path / "moved")
    assert any("--data DATA" in note for note in run(pictured)["notes"])
    assert run(pictured, data=str(moved))["notes"] == ["near-duplicates were not looked for, as asked"]
    assert "data:image/jpeg" in (tmp_path / "run" / "report.html").read_text()


def test_images_that_were_changed_are_counted_and_not_shown(pictured, run, tmp_path):
    assert not any("could not be looked at" in note for note in run(pictured)["notes"])
    assert "data:image/jpeg" in (tmp_path / "run" / "report.html").read_text()
    change_all(pictured)
    [said] = [note for note in run(pictured)["notes"] if "could not be looked at" in note]
    assert "images are of other content" in said
    assert "data:image/jpeg" not in (tmp_path / "run" / "report.html").read_text()


def test_one_count_of_changed_images_stands_for_the_search_and_the_page(pictured, run):
    pictured.X["penultimate"][2] = pictured.X["penultimate"][0]  # candidates, whose pixels are looked at
    change_all(pictured)
    notes = run(pictured, duplicates="auto")["notes"]
    assert len([note for note in notes if "of other content" in note]) == 1


def test_labels_and_patterns_that_fit_no_image_are_refused(make_features, run, tmp_path):
    features = make_features(np.arange(40) % 2, ["a", "b"])
    with pytest.raises(FitError, match="matches no image"):
        run(features, group="speaker-([a-z]+)")
    for text, said in (("path,label\n0000.pg,a\n", "no image '0000.pg'"), ("id,class\n", "not path,label")):
        (tmp_path / "labels.csv").write_text(text)
        with pytest.raises(FitError, match=said):
            run(features, labels=tmp_path / "labels.csv")
    with pytest.raises(FitError, match="cannot read the labels"):
        run(features, labels=tmp_path / "none.csv")


@pytest.mark.parametrize("splits", [[], ["train"] * 30 + ["test"] * 10])
def test_one_group_and_one_image_of_a_class_are_refused(make_features, run, splits):
    whole = make_features(np.arange(40) % 2, ["a", "b"], splits=splits, groups=["all"] * 40)
    with pytest.raises(FitError, match=r"one group|hold any out"):
        run(whole)
    labels = np.r_[2, np.arange(39) % 2]
    with pytest.raises(FitError, match="fewer than 2 training images of 'c'"):
        run(make_features(labels, ["a", "b", "c"], splits=splits))


IMPORTED = "sklearn.neural_network.MLPClassifier"


def test_a_head_that_no_bundle_can_hold_is_refused_before_the_search(make_features, run, monkeypatch):
    monkeypatch.setattr("classify.linear.search", None)
    with pytest.raises(FitError, match=r"MLPClassifier cannot be kept in a bundle.*a head of ours"):
        run(make_features(np.arange(40) % 2, ["a", "b"]), head=IMPORTED, params={"max_iter": [5]})


def test_a_setting_that_needs_more_rows_than_the_proof_has_is_no_reason_to_refuse():
    y = np.arange(100) % 2
    X = blobs(y, 4)
    needy = {"n_estimators": [3], "n_iter_no_change": [2], "validation_fraction": [0.05]}
    head = find_head("sklearn.ensemble.GradientBoostingClassifier", needy)
    with pytest.raises(ValueError, match="number of classes"):
        head.build(head.grid[0], 0).fit(X[:20], y[:20])
    check_kept(head, X[:20], y[:20], None)
    with pytest.raises(FitError, match="cannot be kept"):
        check_kept(head, X, y, None)


def test_a_few_rows_of_a_few_classes_are_the_proof():
    y = np.repeat([4, 1, 0, 7], [30, 2, 30, 30])
    at = few_rows(y)
    assert np.bincount(y[at]).tolist() == [10, 2, 0, 0, 10]


def test_parts_that_are_too_small_for_a_head_cost_the_learning_curve_alone(make_features, run):
    features = make_features(np.arange(100) % 2, ["a", "b"])
    head, params = "sklearn.neighbors.KNeighborsClassifier", {"n_neighbors": [25], "algorithm": ["brute"]}
    found = run(features, head=head, params=params)
    assert found["params"] == {"n_neighbors": 25, "algorithm": "brute"}
    assert found["learning_curve"] is None
    assert any("no learning curve" in note and "n_neighbors = 25" in note for note in found["notes"])


def test_every_setting_of_an_imported_head_is_tried_and_kept(make_features, run, tmp_path):
    features = make_features(np.arange(60) % 3, ["a", "b", "c"])
    head, params = "sklearn.tree.DecisionTreeClassifier", {"max_depth": [1, 4]}
    found = run(features, head=head, params=params)
    assert {row["params"]["max_depth"] for row in found["search"] if row["stage"] == "refine"} == {1, 4}
    assert found["params"] == {"max_depth": 4}
    assert found["test"]["accuracy"]["value"] > 0.8
    assert (tmp_path / "run" / "bundle").is_dir()
