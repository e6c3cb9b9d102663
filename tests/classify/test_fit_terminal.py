import pytest

from classify.terminal import echo_compare, echo_fit, short


def measure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def fitted(**changes):
    """What echo_fit needs of a run's metrics."""
    row = {"layer": "layer4", "layers": ["layer4"], "dims": 512, "transform": "std", "accuracy": measure(0.9)}
    known = {
        "metric": "accuracy",
        "layers": ["layer4", "avgpool"],
        "transform": "std",
        "head": "logistic",
        "params": {"C": 0.0316227766},
        "n_train": 80,
        "n_test": 20,
        "test": {"accuracy": measure(0.85), "balanced_accuracy": measure(0.7)},
        "per_layer": [row, {**row, "layer": "layer1", "layers": ["layer1"], "accuracy": measure(0.5)}],
        "selection": {"n_configurations": 417, "naive": measure(0.91), "corrected": measure(0.88)},
        "run": "runs/photos",
    }
    return known | changes


def test_a_fit_is_told_in_a_few_lines(capsys):
    echo_fit(fitted())
    said = capsys.readouterr().out
    table, _, rest = said.partition("\n\n")
    assert [line.split()[0] for line in table.splitlines() if "layer" in line] == ["layer4", "layer1"]
    assert "layer4" in next(line for line in table.splitlines() if "<- chosen" in line)
    assert rest.splitlines() == [
        "Chosen: logistic (C=0.03162) on layer4 + avgpool (std); 80 training images.",
        "Cross-validated accuracy: 91.0%  [86.0%, 96.0%]; corrected for choosing among 417: 88.0%  [83.0%, 93.0%]",
        "Test accuracy: 85.0%  [80.0%, 90.0%] on 20 images.",
        "Report: runs/photos/report.html",
    ]


@pytest.mark.parametrize(
    ("right", "words"),
    [
        (
            measure(0.9),
            "25.0%  [20.0%, 30.0%] of the test images are answered, and 90.0%  [85.0%, 95.0%] of these rightly",
        ),
        (None, "25.0%  [20.0%, 30.0%] of the test images are answered"),
    ],
)
def test_what_abstaining_costs_is_told(capsys, right, words):
    abstain = {"threshold": 0.7, "asked": 0.95, "test": {"coverage": measure(0.25), "accuracy_of_answered": right}}
    echo_fit(fitted(calibration={"abstain": abstain}))
    assert f"Abstains below 70.0%: {words}; 95% were asked for.\n" in capsys.readouterr().out


def test_a_setting_for_each_class_is_counted():
    assert short({"ants": 0.1, "bees": 10.0}) == "2 by class"


def test_what_a_protocol_was_short_of_is_told(capsys):
    echo_fit(fitted(per_layer=[], selection=None, protocol={"notes": ["of 2 classes all images are taken"]}))
    assert "Note: of 2 classes all images are taken\nReport: " in capsys.readouterr().out


def tuned(**params):
    """What echo_fit needs of a run that trained the network."""
    probe = {name: fitted()[name] for name in ("layers", "transform", "head", "params", "selection", "test")}
    gain = {"accuracy": {"value": 0.031, "low": -0.01, "high": 0.07}, "n": 20}
    changes = {
        "probe": probe,
        "layers": ["penultimate"],
        "head": "linear",
        "params": {"rate": 0.001, "weight_decay": 0.0, "steps": 400} | params,
        "test": {"accuracy": measure(0.881)},
        "gain": {"out_of_fold": None, "test": gain},
        "finetune": {"strategy": "tail", "kept_until": "layer3"},
    }
    return fitted(**changes)


def test_a_trained_network_is_told_beside_its_probe(capsys):
    echo_fit(tuned())
    said = capsys.readouterr().out
    assert "<- chosen" in next(line for line in said.splitlines() if line.startswith("layer4"))
    assert said.partition("\n\n")[2].splitlines()[2:] == [
        "Test accuracy: 85.0%  [80.0%, 90.0%] on 20 images.",
        "Trained: tail, the network above layer3 (rate=0.001, weight_decay=0, steps=400).",
        "Test accuracy of the trained network: 88.1%  [83.1%, 93.1%].",
        "Gain over the probe: +3.1 points  [-1.0, +7.0] on 20 images of the test.",
        "Report: runs/photos/report.html",
    ]


def test_a_training_that_nothing_was_kept_of_is_told_as_that(capsys):
    said = "No step of it lowered the validation loss: the weights are those that it began with."
    for steps, expected in ((0, True), (20, False)):
        echo_fit(tuned(steps=steps))
        assert (said in capsys.readouterr().out.splitlines()) is expected


def test_the_metric_that_leads_is_the_one_that_is_told(capsys):
    echo_fit(fitted(metric="balanced_accuracy", per_layer=[], selection=None))
    said = capsys.readouterr().out
    assert "Test balanced accuracy: 70.0%" in said
    assert "Cross-validated" not in said


def test_what_was_found_is_told_and_what_was_not_is_not(capsys):
    hygiene = {"label_issues": {"n": 3}, "duplicates": {"n_pairs": 0}, "conflicts": {"n": 1}, "outliers": {"n": 0}}
    words = {"grouping": {"words": "6 groups"}, "learning_curve": {"words": "Saturated"}}
    echo_fit(fitted(hygiene=hygiene, **words))
    lines = capsys.readouterr().out.splitlines()
    assert "Look at: 3 suspect labels, 1 label conflict (findings/*.csv, and in the report)" in lines
    assert "Groups: 6 groups" in lines
    assert "More images: Saturated" in lines


def test_runs_are_told_side_by_side_with_what_holds(capsys):
    run = {"layers": ["a", "b"], "head": "ridge", "n_test": 20, "test": {"map": measure(0.8)}}
    pairs = [{"words": "one is better than two"}]
    runs = [{"run": "one", **run}, {"run": "two", **run}]
    echo_compare({"metric": "map", "runs": runs, "pairs": pairs, "notes": ["few images"]})
    said = capsys.readouterr().out
    assert "test mAP, 95 %" in said
    assert "a + b" in said
    assert said.splitlines()[-2:] == ["one is better than two", "Note: few images"]


@pytest.mark.parametrize(("value", "said"), [(0.1 + 0.2, "0.3"), (12, "12"), (True, "True"), ("gini", "gini")])
def test_settings_have_no_digits_that_nobody_reads(value, said):
    assert short(value) == said
