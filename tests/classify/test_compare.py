import csv
import json
import os

import numpy as np
import pytest

from classify import compare as module
from classify.compare import compare, read_run, reading, render_compare
from classify.evaluate import draw_resamples, evaluate
from classify.statistics import mcnemar, paired_rows
from extract.errors import FitError, OptionError

INTERVAL = {"value": 0.5, "low": 0.4, "high": 0.6}


def write_run(folder, answers, out_of_fold=None, **known):
    """Write a run whose test named images so: {id: (label, predicted)}."""
    folder.mkdir()
    y, predicted = module._coded(*map(list, zip(*answers.values(), strict=True)))
    metrics = {
        "features": "pets/0123456789ab",
        "layers": ["layer4"],
        "head": "logistic",
        "params": {"C": 1.0},
        "metric": "accuracy",
        "n_train": 500,
        "n_test": len(y),
        "test": evaluate(y, predicted, draw_resamples(len(y), None, 0)),
    }
    (folder / "metrics.json").write_text(json.dumps(metrics | known))
    write_answers(folder / "predictions.csv", answers)
    if out_of_fold is not None:
        write_answers(folder / "out_of_fold.csv", out_of_fold, [reading.FOLD])
    return folder


def write_answers(path, answers, more=()):
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*reading.FIELDS, *more])
        rows = [[id_, "test", label, predicted, 0.5] for id_, (label, predicted) in answers.items()]
        writer.writerows([*row, *(1 for _ in more)] for row in rows)


def answers(n, wrong=(), start=0):
    names = ["cat", "dog"]
    return {f"{at:03d}.png": (names[at % 2], names[(at + (at in wrong)) % 2]) for at in range(start, start + n)}


def test_runs_are_set_against_the_best(tmp_path):
    poor = write_run(tmp_path / "poor", answers(100, range(30)))
    good = write_run(tmp_path / "good", answers(100, range(28, 33)), head="ridge", transform="std")
    found = compare([poor, good])
    assert (found["metric"], found["best"], found["notes"]) == ("accuracy", str(good), [])
    assert [row["run"] for row in found["runs"]] == [str(poor), str(good)]
    assert (found["runs"][1]["head"], found["runs"][1]["transform"]) == ("ridge", "std")
    assert found["runs"][0]["transform"] is None
    [pair] = found["pairs"]
    assert (pair["run"], pair["best"], pair["on"], pair["n"]) == (str(poor), str(good), "test", 100)
    y = np.arange(100) % 2
    a, b = ((y + np.isin(np.arange(100), wrong)) % 2 for wrong in (range(28, 33), range(30)))
    expected = paired_rows(y, a, b, seed=0)["accuracy"]
    assert pair["metrics"]["accuracy"] == {"mean": 0.25, "low": expected.low, "high": expected.high, "p": expected.p}
    assert pair["mcnemar"] == mcnemar(y, a, b)
    assert "is better than" in pair["words"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_small_difference_is_said_to_be_no_clear_one(tmp_path):
    runs = [write_run(tmp_path / "a", answers(50, [1, 2])), write_run(tmp_path / "b", answers(50, [2]))]
    [pair] = compare(runs)["pairs"]
    assert "is not clearly different from" in pair["words"]
    assert "+2.0 points of accuracy" in pair["words"]


def test_only_shared_images_count_and_that_is_said(tmp_path):
    a = write_run(tmp_path / "a", answers(100, [3]))
    b = write_run(tmp_path / "b", answers(60, range(60, 90), start=50))
    found = compare([a, b])
    [pair] = found["pairs"]
    assert (pair["n"], pair["n_best"], pair["n_run"]) == (50, 100, 60)
    assert pair["metrics"]["accuracy"]["mean"] == pytest.approx(0.6)
    assert found["notes"] == [
        f"{a} and {b} differ in the images of the test (100 and 60): their difference is over the 50 that they share"
    ]


def test_images_under_two_labels_are_left_out_and_that_is_said(tmp_path):
    other = answers(100, range(10)) | {"001.png": ("cow", "cow"), "090.png": ("cow", "cat")}
    a, b = write_run(tmp_path / "a", answers(100)), write_run(tmp_path / "b", other)
    found = compare([a, b])
    [pair] = found["pairs"]
    assert (pair["n"], pair["n_other_label"]) == (98, 2)
    assert pair["metrics"]["accuracy"]["mean"] == pytest.approx(9 / 98)
    assert f"2 images have another label in {b} than in {a}: left out" in found["notes"]


def test_nothing_in_common(tmp_path):
    a, b = write_run(tmp_path / "a", answers(10)), write_run(tmp_path / "b", answers(10, [12], start=10))
    [pair] = compare([a, b])["pairs"]
    assert (pair["n"], pair["metrics"], pair["mcnemar"]) == (0, {}, None)
    assert "share no image" in pair["words"]


def test_answers_out_of_fold_are_compared_where_both_have_them(tmp_path):
    a = write_run(tmp_path / "a", answers(20), answers(40, start=100))
    b = write_run(tmp_path / "b", answers(20, [1]), answers(40, [100, 101], start=100))
    c = write_run(tmp_path / "c", answers(20, [1]))
    found = compare([a, b, c])
    shown = [(pair["on"], pair["run"]) for pair in found["pairs"]]
    assert shown == [("test", str(b)), ("test", str(c)), ("out_of_fold", str(b))]
    assert found["pairs"][2]["metrics"]["accuracy"]["mean"] == pytest.approx(0.05)
    assert "the best of 3 runs is a little too good, having been picked on these same images" in found["notes"]
    assert found["notes"][-2].startswith("out of fold, training sets overlap")


def test_what_else_makes_it_less_than_it_seems_is_said(tmp_path):
    a = write_run(tmp_path / "a", answers(20), grouping={"n_groups": 4})
    b = write_run(tmp_path / "b", answers(20, [1]), features="birds/0123", metric="macro_f1")
    notes = " ".join(compare([a, b])["notes"])
    assert "different feature sets" in notes
    assert f"by which {b} was not chosen" in notes
    assert "belong to groups" in notes


def test_a_run_is_found_by_name(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    for name in "ab":
        write_run(tmp_path / "runs" / name, answers(10))
    monkeypatch.chdir(tmp_path)
    assert compare([module.Path("a"), module.Path("b")])["best"] == "a"


def test_a_run_is_not_compared_with_itself(tmp_path):
    run = write_run(tmp_path / "a", answers(10))
    (tmp_path / "again").symlink_to(run)
    for runs in ([run], [run, tmp_path / "again"], []):
        with pytest.raises(OptionError, match="two runs or more, each once"):
            compare(runs)


def test_runs_measured_by_other_metrics_are_refused(tmp_path):
    b = write_run(tmp_path / "b", answers(10), test={"accuracy": INTERVAL})
    a = write_run(tmp_path / "a", answers(10), metric="macro_f1")
    with pytest.raises(FitError, match=r"no metric in the test of .*macro_f1"):
        compare([a, b])


def test_a_metric_that_tables_of_answers_do_not_tell_gives_way_to_accuracy(tmp_path):
    test = {"accuracy": INTERVAL, "map_11": INTERVAL}
    runs = [write_run(tmp_path / name, answers(10), metric="map_11", test=test) for name in "ab"]
    found = compare(runs)
    assert found["metric"] == "map_11"
    assert "points of accuracy" in found["pairs"][0]["words"]


def test_no_run(tmp_path):
    with pytest.raises(FitError, match="no run of that name"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "has no features"),
        ('{"features": 1}', "has no features, or it is no str"),
        ("9" * 5000, "cannot be read"),
        ("\udcff", "cannot be read"),
    ],
)
def test_broken_metrics(tmp_path, text, said):
    run = write_run(tmp_path / "a", answers(10))
    (run / "metrics.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(FitError, match=said):
        read_run(run)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "1" * 4000, "null", '"1"', "[]"])
def test_numbers_that_are_none(tmp_path, number):
    run = write_run(tmp_path / "a", answers(10), test={"accuracy": INTERVAL | {"value": 77777}})
    text = (run / "metrics.json").read_text().replace("77777", number)
    (run / "metrics.json").write_text(text)
    with pytest.raises(FitError, match=r"no value with an interval|is no number"):
        read_run(run)


def test_numbers_that_no_json_carries_on_are_refused_wherever_they_stand(tmp_path):
    for at, number in enumerate(("NaN", "-Infinity", "1e999")):
        run = write_run(tmp_path / str(at), answers(10), params={"C": 77777})
        (run / "metrics.json").write_text((run / "metrics.json").read_text().replace("77777", number))
        with pytest.raises(FitError, match=r"is no number"):
            read_run(run)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "first line is not id,split"),
        ("path,label\n", "first line is not id,split"),
        ("id,split,label,predicted,probability\na,,b\n", "3 cells where 5 belong"),
        ("id,split,label,predicted,probability\na,,b,b,1\na,,b,b,1\n", "two rows for 'a'"),
        ('id,split,label,predicted,probability\n"a,,b,b,1\n', "cannot be read"),
        ("id,split,label,predicted,probability\n" + "a" * 200_000 + ",,b,b,1\n", "cannot be read"),
    ],
)
def test_broken_answers(tmp_path, text, said):
    run = write_run(tmp_path / "a", answers(10))
    (run / "predictions.csv").write_text(text)
    with pytest.raises(FitError, match=said):
        read_run(run)


def test_hostile_sizes_are_refused_before_they_are_read(tmp_path, monkeypatch):
    run = write_run(tmp_path / "a", answers(10))
    with (run / "predictions.csv").open("r+") as file:
        os.truncate(file.fileno(), reading.MAX_CSV_BYTES + 1)
    with pytest.raises(FitError, match="too large"):
        read_run(run)
    with (run / "metrics.json").open("r+") as file:
        os.truncate(file.fileno(), reading.MAX_JSON_BYTES + 1)
    with pytest.raises(FitError, match="too large"):
        read_run(run)
    monkeypatch.setattr(reading, "MAX_ROWS", 9)
    with pytest.raises(FitError, match="more than 9 rows"):
        read_run(write_run(tmp_path / "b", answers(10)))


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path):
    run = write_run(tmp_path / "a", answers(10))
    (run / "predictions.csv").unlink()
    os.mkfifo(run / "predictions.csv")
    with pytest.raises(FitError, match="no such file"):
        read_run(run)


def test_sets_of_labels_are_right_or_wrong_as_a_whole(tmp_path):
    test = {"macro_f1": INTERVAL, "map": INTERVAL}
    wanted = {"a.png": ("cat|dog", "cat"), "b.png": ("cat", "cat"), "c.png": ("", "")}
    a = write_run(tmp_path / "a", wanted, metric="map", test=test)
    b = write_run(tmp_path / "b", wanted | {"a.png": ("cat|dog", "cat|dog")}, metric="map", test=test)
    [pair] = compare([a, b])["pairs"]
    assert list(pair["metrics"]) == ["subset_accuracy"]
    assert pair["metrics"]["subset_accuracy"]["mean"] == pytest.approx(-1 / 3)
    assert "points of subset accuracy" in pair["words"]
    with pytest.raises(FitError, match="one label an image"):
        compare([a, write_run(tmp_path / "c", answers(10), metric="macro_f1")])


def test_the_page_shows_runs_differences_and_doubts(tmp_path):
    a = write_run(tmp_path / "a", answers(100, range(30)), answers(9, start=200), transform="pow")
    b = write_run(tmp_path / "b", answers(100, range(5)), answers(9, [200], start=200))
    c = write_run(tmp_path / "<script>", answers(50, range(52, 60), start=50), features="birds/01")
    html = render_compare(compare([a, b, c]))
    assert "<h1>Best of 3 runs: " in html
    assert "signed square root" in html
    assert "+25.0 (" in html
    assert "they share" in html
    assert "training part, out of fold" in html
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_the_page_of_runs_that_share_nothing(tmp_path):
    a, b = write_run(tmp_path / "a", answers(10)), write_run(tmp_path / "b", answers(10, [12], start=10))
    assert "<p>None.</p>" in render_compare(compare([a, b]))
