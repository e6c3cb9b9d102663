from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline
from classify.advise import contenders
from classify.advise.backbone_words import said_of
from classify.advise.backbones import _ranked, parse_models, rank_backbones
from classify.advise.contenders import Bout, Contender, cross_chosen
from classify.advise.terminal import echo_backbones
from classify.finetune.images import Source, find_source
from classify.folds import Part
from classify.inputs import Inputs, open_for_fit, read_inputs
from classify.spec import FitSpec
from classify.statistics import paired
from classify.trials import Candidate
from extract.catalogue import list_layers
from extract.errors import OptionError
from extract.progress import Silent
from extract.spec import BackboneSpec
from extract.store import open_features
from tests.classify.finetune.tiny_story import extract_photos, write_photos
from tests.classify.tiny_task import tiny_task

Ground = tuple[FitSpec, Inputs, Source]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """60 images of stripes, the features of a random network, and where the images are."""
    folder = tmp_path_factory.mktemp("models")
    extract_photos(write_photos(folder / "photos"), folder / "cache")
    spec = FitSpec("photos", cache=folder / "cache", cv=3, jobs=1, duplicates="off", device="cpu")
    inputs = read_inputs(spec, open_for_fit(spec), Silent())
    return spec, inputs, find_source(inputs.features, inputs.data.train.rows, None, None)


@pytest.fixture(scope="module")
def ranking(ground: Ground) -> dict[str, Any]:
    models = parse_models(["builtin", "nosuch", "builtin=gone.pt"])
    return rank_backbones(*ground, models, Silent(), most=30)


def test_networks_are_named_with_the_weights_of_each_or_of_all():
    assert parse_models(["a", " b=w.pt", "c=none", "a"], "none", 7) == [
        BackboneSpec("a", "none", 7), BackboneSpec("b", "w.pt", 7), BackboneSpec("c", "none", 7)
    ]  # fmt: skip
    assert parse_models(["a"])[0].weights == "auto"
    with pytest.raises(OptionError, match="without a name"):
        parse_models(["=w.pt"])


def test_rows_stand_from_the_best_down_and_what_cannot_be_had_says_so(ranking):
    names = [row["name"] for row in ranking["rows"]]
    assert set(names[:2]) == {"builtin", "builtin:cifar_resnet14 (your features)"}
    assert names[2:] == ["nosuch", "builtin=gone.pt"]
    first, second, unknown, gone = ranking["rows"]
    assert first["value"]["value"] >= second["value"]["value"]
    assert (first["against"], ranking["best"], ranking["n"]) == (None, names[0], 30)
    assert second["against"]["value"] == pytest.approx(second["value"]["value"] - first["value"]["value"])
    assert "no model 'nosuch'" in unknown["reason"]
    assert gone["reason"] == "no such weights file"
    assert all(row["images_per_s"] > 0 and row["seconds"] > 0 for row in (first, second))
    assert not any(unknown[name] for name in ("layer", "value", "images_per_s"))
    assert ranking["words"] == said_of(ranking)


def test_a_network_costs_what_all_up_to_its_best_layer_does(ranking):
    known = {row["layer"]: row for row in list_layers("builtin")["layers"]}
    [row] = [row for row in ranking["rows"] if row["name"] == "builtin"]
    assert row["parameters"] == known[row["layer"]]["parameters"]
    whole = 0.106  # billions of multiply-adds, as the network was published with
    assert row["giga_ops"] == pytest.approx(whole * known[row["layer"]]["compute"], rel=0.01)


def test_the_comparison_has_features_of_its_own_and_leaves_those_of_the_name_alone(ground, ranking):
    spec = ground[0]
    assert open_features("photos", spec.cache).digest == ground[1].features.digest
    made = open_features("photos-models", spec.cache)
    assert len(made) == ranking["n"] == len(made.rows())
    assert [tap.name for tap in made.recipe.taps] == ["layer1", "layer2", "layer3", "penultimate"]


def test_a_second_comparison_extracts_and_scans_nothing(ground, ranking, monkeypatch):
    made = []

    def extract(*args: Any) -> dict[str, Any]:
        made.append(contenders_extract(*args))
        return made[-1]

    contenders_extract = contenders.extract
    monkeypatch.setattr(contenders, "extract", extract)
    monkeypatch.setattr("classify.search.scan", lambda *_: pytest.fail("scanned again"))
    again = rank_backbones(*ground, parse_models(["builtin"]), Silent(), most=30)
    assert [done["computed"] for done in made] == [0]
    measured = ("name", "layer", "transform", "value", "against", "parameters", "giga_ops")
    assert [[row[key] for key in measured] for row in again["rows"]] == [
        [row[key] for key in measured] for row in ranking["rows"][:2]
    ]


def test_a_network_that_takes_longer_than_what_is_left_is_left_out(ground):
    found = rank_backbones(*ground, parse_models(["builtin=none"], seed=3), Silent(), seconds=0.0, most=30)
    assert "0 seconds are left" in found["rows"][1]["reason"]
    assert found["words"].startswith("There is only builtin:cifar_resnet14 (your features)")
    assert "Run" not in found["words"]
    assert found["command"] == ["offshelf", "fit", "photos", "--cache", str(ground[0].cache)]


def contender(name: str, wrong: np.ndarray, y: np.ndarray, giga_ops: float) -> Contender:
    predicted = y.copy()
    predicted[wrong] = 1 - y[wrong]
    best = Candidate(("layer3",), "std", 64, 0)
    return Contender(BackboneSpec(name), name, best, predicted, 10**6, giga_ops, 50.0, 1.0)


@pytest.fixture
def bout(ground: Ground) -> Bout:
    """200 rows of two classes; the features are only there to be named."""
    y = np.tile([0, 1], 100)
    task = tiny_task(y, {"tap": np.zeros((200, 1))})
    return Bout(ground[0], ground[1].features, ground[2], Part(np.arange(200), y, None), task)


def test_of_equals_the_cheapest_is_taken_and_of_unequals_the_best(bout):
    y, rows = bout.task.y, np.arange(200)
    dear, cheap = contender("dear", rows[:10], y, 4.0), contender("cheap", rows[1:12], y, 1.0)
    poor = contender("poor", rows[:60], y, 0.1)
    found = _ranked(bout, [dear, poor, cheap])
    assert [row["name"] for row in found["rows"]] == ["dear", "cheap", "poor"]
    assert (found["best"], found["chosen"]) == ("dear", "cheap")
    gap = paired(y, cheap.predicted, dear.predicted, bout.task.resamples, "accuracy")
    assert found["rows"][1]["against"] == {"value": gap.mean, "low": gap.low, "high": gap.high}
    assert "which may be chance, for 25.0 % of the computing" in said_of(found)
    assert f"Run `{' '.join(found['command'])}`, and fit that." in said_of(found)
    assert _ranked(bout, [dear, poor])["chosen"] == "dear"
    assert "every other one is surely worse" in said_of(_ranked(bout, [dear, poor]))


def test_of_two_alike_the_answer_is_the_same_whichever_comes_first(bout):
    a, b = (contender(name, np.arange(10), bout.task.y, ops) for name, ops in (("a", 2.0), ("b", 1.0)))
    assert _ranked(bout, [a, b])["chosen"] == _ranked(bout, [b, a])["chosen"] == "b"


def test_the_next_command_is_one_that_there_is(bout):
    chosen = contender("builtin:cifar_resnet14", np.arange(3), bout.task.y, 1.0)
    source = replace(bout.source, root=Path("elsewhere"))
    command = _ranked(replace(bout, source=source), [chosen])["command"]
    assert command[:2] == ["offshelf", "extract"]
    known = pipeline.main.commands["extract"].make_context("extract", command[2:]).params
    assert known["data"] == bout.source.data
    assert known["name"] == "photos-cifar_resnet14"
    assert known["layers"] == ("stages", "penultimate")
    assert known["root"] == Path("elsewhere")


def test_a_fold_is_answered_by_what_does_best_on_the_others():
    y = np.tile([0, 1], 20)
    task = tiny_task(y, {"tap": np.zeros((40, 1))})
    tried = np.random.default_rng(0).integers(0, 2, (7, 40))
    expected = np.empty_like(y)
    for _, test in task.folds:
        others = [at for at in range(40) if at not in test]
        right = [sum(codes[at] == y[at] for at in others) for codes in tried]
        expected[test] = tried[right.index(max(right))][test]
    predicted, at = cross_chosen(tried, task)
    np.testing.assert_array_equal(predicted, expected)
    assert at == np.argmax((tried == y).sum(axis=1))


def test_many_that_know_nothing_are_worth_no_more_than_one():
    y = np.tile([0, 1], 200)
    task = tiny_task(y, {"tap": np.zeros((400, 1))})
    rng, worth, best = np.random.default_rng(1), [], []
    for _ in range(20):
        tried = rng.integers(0, 2, (60, 400))
        predicted, at = cross_chosen(tried, task)
        worth.append((predicted == y).mean())
        best.append((tried[at] == y).mean())
    assert abs(np.mean(worth) - 0.5) < 0.02
    assert np.mean(best) > 0.54


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_where_all_answer_alike_it_is_that_answer(seed):
    y = np.tile([0, 1], 12)
    codes = np.random.default_rng(seed).integers(0, 2, 24)
    task = tiny_task(y, {"tap": np.zeros((24, 1))})
    predicted, at = cross_chosen(np.stack([codes] * 3), task)
    np.testing.assert_array_equal(predicted, codes)
    assert at == 0


def test_the_table_names_all_and_marks_the_one_to_take(ranking, capsys):
    echo_backbones(ranking)
    lines = capsys.readouterr().out.splitlines()
    [taken] = [line for line in lines if "<- take" in line]
    assert taken.startswith(ranking["chosen"])
    assert sum("not compared" in line for line in lines[:-1]) == 2
    assert lines[-1] == ranking["words"]
