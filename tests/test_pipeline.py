import csv
import io
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

import pipeline
from classify.heads import HEADS
from classify.predict import CSV_FIELDS
from extract.spec import ExtractSpec

ROOT = Path(pipeline.__file__).parent


def run(*args: object, code: int = 0):
    result = CliRunner().invoke(pipeline.main, [str(arg) for arg in args])
    assert result.exit_code == code, result.output + result.stderr
    return result


def run_json(*args: object, code: int = 0):
    return json.loads(run(*args, "--json", code=code).stdout)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two classes that a glance tells apart: 24 training and 10 validation images."""
    folder, rng = tmp_path_factory.mktemp("data") / "photos", np.random.default_rng(0)
    for split, n in (("train", 12), ("val", 5)):
        for label, shade in (("dark", 40), ("light", 200)):
            (folder / split / label).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(shade - 30, shade + 30, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def fitted(photos, tmp_path_factory):
    """The folder of a cache and a run that `photos` went through once."""
    work = tmp_path_factory.mktemp("work")
    done = run_json("extract", photos, "-m", "builtin", "-l", "stages", "-l", "penultimate", "--cache", work / "cache")
    where = ("--cache", work / "cache", "--out", work / "run")
    metrics = run_json("fit", done["features"], "--strategy", "linear", *where)
    return work, done, metrics


def test_help_answers_without_the_heavy_imports():
    code = "import sys, pipeline; print({'torch', 'torchvision', 'sklearn', 'h5py', 'numpy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


@pytest.mark.parametrize("group", [(), ("cache",)])
def test_the_list_of_commands_says_what_each_does_in_whole_sentences(group):
    said = CliRunner().invoke(pipeline.main, [*group, "--help"]).output.partition("Commands:")[2]
    assert said.count(".\n") == len((pipeline.cache if group else pipeline.main).commands)
    assert "..." not in said


def test_the_library_never_prints(fitted, capfd):
    assert capfd.readouterr().out == ""


def test_extract_says_what_scripts_rely_on(fitted):
    _, done, _ = fitted
    assert done["rows"] == done["computed"] == 34
    assert (done["reused"], done["dropped"], done["bad"]) == (0, 0, 0)
    assert done["features"] == f"photos/{done['key'][:12]}"
    assert set(done["stages"]) == {"read", "decode", "transfer", "forward", "write"}
    assert sum(done["stages"].values()) == pytest.approx(1, abs=0.01)
    assert done["bottleneck"] in done["stages"]
    assert done["hint"]
    assert done["runner"] == "eager"
    assert done["images_per_s"] > 0
    assert done["bytes"] > 0
    with h5py.File(done["path"]) as file:
        assert file["features"].shape == (34, 128)
        assert list(file["layers"]) == ["layer1", "layer2", "layer3", "penultimate"]


def test_a_second_extract_computes_nothing(photos, fitted):
    work, first, _ = fitted
    again = run_json("extract", photos, "-m", "builtin", "-l", "stages", "-l", "penultimate", "--cache", work / "cache")
    assert (again["computed"], again["reused"]) == (0, 34)
    assert again["key"] == first["key"]
    assert [again[name] for name in ("images_per_s", "bottleneck", "hint", "runner")] == [None] * 4


def test_the_order_of_the_layers_is_no_matter(photos, fitted):
    work, first, _ = fitted
    again = run_json("extract", photos, "-m", "builtin", "-l", "penultimate", "-l", "stages", "--cache", work / "cache")
    assert (again["key"], again["computed"]) == (first["key"], 0)


def test_fit_writes_a_run(fitted):
    work, _, metrics = fitted
    assert metrics == json.loads((work / "run" / "metrics.json").read_text())
    assert metrics["test"]["accuracy"]["value"] == 1.0
    assert metrics["test"]["accuracy"]["low"] < 1.0
    assert (metrics["n_train"], metrics["n_test"]) == (24, 10)
    files = {path.relative_to(work / "run").as_posix() for path in (work / "run").rglob("*") if path.is_file()}
    findings = ("conflicts", "dead_features", "duplicates", "outliers", "suspect_labels")
    assert files == {
        *("metrics.json", "predictions.csv", "out_of_fold.csv", "report.html"),
        *(f"findings/{name}.csv" for name in findings),
        *(f"bundle/{name}" for name in ("bundle.json", "head.safetensors", "open_set.safetensors", "recipe.json")),
        *("bundle/examples.safetensors", "bundle/weights.safetensors"),
    }


@pytest.mark.parametrize("head", HEADS)
def test_every_head_is_fitted_and_told(photos, fitted, tmp_path, head):
    work, done, _ = fitted
    arguments = ("fit", done["features"], "--cache", work / "cache", "--out", tmp_path / "run", "-l", "penultimate")
    assert f"Chosen: {head}" in run(*arguments, "--head", head).stdout
    assert run_json("predict", tmp_path / "run", photos / "val" / "dark" / "0.png")["label"] == "dark"


def test_a_fit_that_is_not_told_how_finds_out_what_pays_and_says_so(fitted, tmp_path):
    work, done, plain = fitted
    where = ("fit", done["features"], "--cache", work / "cache", "--out", tmp_path / "run", "-l", "penultimate")
    metrics = run_json(*where)
    assert metrics["strategy"] == plain["strategy"] == "linear"  # nothing is left to gain
    assert plain["advice"] is None
    assert metrics["advice"]["budget_s"] == 600
    assert [row["rung"] for row in metrics["advice"]["ladder"]] == [
        "linear",
        "taps",
        "tail",
        "lp-ft",
        "full",
        "scratch",
    ]
    said = run(*where, "--budget", "5m").stdout
    assert "The advice: keep the network as it is" in said
    assert "Which case is this, and what to do?" in (tmp_path / "run" / "report.html").read_text()


def test_predict_gives_csv_or_json_lines(photos, fitted):
    work, _, _ = fitted
    table = csv.DictReader(io.StringIO(run("predict", work / "run", photos / "val" / "dark").stdout))
    rows = list(table)
    assert table.fieldnames == list(CSV_FIELDS)
    assert [row["label"] for row in rows] == ["dark"] * 5
    lines = run("predict", work / "run", photos / "val" / "dark", "--json", "--top", 1).stdout.splitlines()
    answers = [json.loads(line) for line in lines]
    assert [answer["id"] for answer in answers] == [row["id"] for row in rows]
    assert answers[0]["top"] == [{"label": "dark", "probability": answers[0]["probability"]}]
    assert answers[0]["status"] == "ok"


def test_predict_says_what_else_it_may_be_and_whether_it_is_like_what_was_seen(photos, fitted, tmp_path):
    work, _, _ = fitted
    stripes = np.zeros((40, 40, 3), np.uint8)
    stripes[::4] = (255, 0, 255)
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    lines = run("predict", work / "run", photos / "val" / "dark" / "0.png", tmp_path / "stripes.png", "--json").stdout
    known, new = map(json.loads, lines.splitlines())
    assert (known["set"], known["known"]) == (["dark"], True)
    assert known["novelty"] <= 1 < new["novelty"]
    assert new["known"] is False
    assert "labels" not in known


def test_predict_agrees_with_the_test_predictions_of_the_fit(photos, fitted):
    work, _, _ = fitted
    fit = {row["id"]: row for row in csv.DictReader((work / "run" / "predictions.csv").read_text().splitlines())}
    lines = run("predict", work / "run", photos / "val", "--format", "jsonl").stdout.splitlines()
    answers = {Path(answer["id"]).relative_to(photos).as_posix(): answer for answer in map(json.loads, lines)}
    assert answers.keys() == fit.keys()
    for name, row in fit.items():
        assert answers[name]["label"] == row["predicted"]
        assert answers[name]["probability"] == pytest.approx(float(row["probability"]), abs=1e-5)


def test_predict_gives_a_row_to_a_bad_file_and_abstains_when_unsure(photos, fitted, tmp_path):
    work, _, _ = fitted
    (tmp_path / "b.png").write_bytes((photos / "val" / "dark" / "0.png").read_bytes())
    (tmp_path / "a.jpg").write_bytes(b"no image")
    out = tmp_path / "answers.jsonl"
    run("predict", work / "run", tmp_path / "a.jpg", tmp_path / "b.png", "--json", "--abstain-below", 1, "-o", out)
    bad, good = map(json.loads, out.read_text().splitlines())
    assert (bad["status"], bad["label"], bad["probability"], bad["top"]) == ("not an image", None, None, [])
    assert bad["reason"]
    assert (good["status"], good["label"], good["abstained"]) == ("ok", "dark", True)


def test_evaluate_measures_on_other_data(photos, fitted):
    work, _, metrics = fitted
    done = run_json("evaluate", work / "run", photos / "val")
    assert done["metrics"]["accuracy"] == pytest.approx(metrics["test"]["accuracy"])
    assert (done["n"], done["n_bad"], done["unseen_classes"]) == (10, 0, [])
    assert done["conformal"]["coverage"] == pytest.approx(metrics["calibration"]["conformal"]["coverage"])
    said = run("evaluate", work / "run", photos / "val").stdout
    assert re.search(r"Prediction sets hold the truth in 1?\d\d\.\d%  \[.*\] of images; 90% were asked for\.", said)


def test_runs_are_put_side_by_side(fitted, tmp_path):
    work, done, _ = fitted
    other = tmp_path / "other"
    run_json("fit", done["features"], "--cache", work / "cache", "--out", other, "-l", "layer1", "--head", "centroid")
    found = run_json("compare", work / "run", other)
    assert [row["run"] for row in found["runs"]] == [str(work / "run"), str(other)]
    assert [row["head"] for row in found["runs"]] == ["logistic", "centroid"]
    assert {pair["on"]: pair["n"] for pair in found["pairs"]} == {"test": 10, "out_of_fold": 24}
    page = tmp_path / "compare.html"
    said = run("compare", work / "run", other, "-o", page).stdout
    assert all(pair["words"] in said for pair in found["pairs"])
    assert found["pairs"][0]["words"].split(":")[0] in page.read_text()
    assert "Name two runs or more" in run("compare", other, code=1).stderr
    assert run_json("compare", other, tmp_path / "none", code=1)["error"]["what"].startswith("no run")


@pytest.mark.parametrize(
    ("options", "name", "bundle"),
    [
        (("--protocol", "kornblith"), "kornblith", True),
        (("--few-shot", 2, "--draws", 5), "few-shot", True),
        (("--protocol", "dinov2-knn"), "dinov2-knn", False),
    ],
)
def test_a_published_protocol_is_followed(photos, fitted, tmp_path, options, name, bundle):
    work, done, _ = fitted
    out = tmp_path / "run"
    arguments = ("fit", done["features"], "--cache", work / "cache", "--out", out, "-l", "penultimate", *options)
    metrics = run_json(*arguments)
    assert (metrics["protocol"]["protocol"], metrics["protocol"]["kept"]) == (name, bundle)
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert {row["run"] for row in run_json("compare", out, work / "run")["runs"]} == {str(out), str(work / "run")}
    image = photos / "val" / "dark" / "0.png"
    if bundle:
        assert run_json("predict", out, image)["label"] == "dark"
    else:
        assert "no run of that name or path" in run_json("predict", out, image, code=1)["error"]["what"]
    assert f"Chosen: {name}" in run(*arguments).stdout


def test_a_classifier_by_its_path_is_searched_kept_and_read_again(photos, fitted, tmp_path):
    work, done, _ = fitted
    where = ("--cache", work / "cache", "--out", tmp_path / "run", "-l", "penultimate")
    head = ("--head", "sklearn.ensemble.RandomForestClassifier", "--param", "n_estimators=5,9", "--cv", 2)
    metrics = run_json("fit", done["features"], *where, *head)
    assert {row["params"]["n_estimators"] for row in metrics["search"] if row["stage"] == "refine"} == {5, 9}
    answers = run("predict", tmp_path / "run", photos / "val", "--json").stdout.splitlines()
    assert [json.loads(answer)["label"] for answer in answers] == ["dark"] * 5 + ["light"] * 5


def test_several_labels_an_image_go_the_whole_road(tmp_path):
    rng, rows = np.random.default_rng(0), ["path,label"]
    for number in range(40):
        red, blue = number % 2, number // 2 % 2
        pixels = rng.integers(0, 60, (32, 32, 3), np.uint8)
        pixels[..., 0] += np.uint8(150 * red)
        pixels[..., 2] += np.uint8(150 * blue)
        Image.fromarray(pixels).save(tmp_path / f"{number:02}.png")
        rows.append(f"{number:02}.png,{'|'.join(['red'] * red + ['blue'] * blue) or '-'}")
    (tmp_path / "colours.csv").write_text("\n".join(rows) + "\n")
    cache = ("--cache", tmp_path / "cache")
    done = run_json("extract", tmp_path / "colours.csv", "-m", "builtin", "-l", "layer1", *cache)
    metrics = run_json("fit", done["features"], *cache, "--out", tmp_path / "run", "--multi-label", "--cv", 2)
    assert (metrics["task"], metrics["classes"]) == ("multi", ["blue", "red"])
    assert metrics["test"]["map"]["value"] > 0.9
    answers = run("predict", tmp_path / "run", tmp_path / "00.png", tmp_path / "03.png", "--json").stdout.splitlines()
    nothing, both = map(json.loads, answers)
    assert nothing["labels"] == []
    assert set(both["labels"]) == {"red", "blue"}
    assert "map" in run("evaluate", tmp_path / "run", tmp_path / "colours.csv").stdout


def test_labels_of_a_file_are_fitted_without_an_extraction(photos, fitted, tmp_path, monkeypatch):
    work, done, _ = fitted
    monkeypatch.setattr("extract.run.run_plan", None)
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    table = "path,label\n" + "".join(f"{name},{'even' if int(name[-5]) % 2 == 0 else 'odd'}\n" for name in names)
    (tmp_path / "labels.csv").write_text(table)
    where = ("--cache", work / "cache", "--out", tmp_path / "run", "-l", "penultimate", "--head", "ridge")
    metrics = run_json("fit", done["features"], *where, "--labels", tmp_path / "labels.csv")
    assert metrics["classes"] == ["even", "odd"]
    assert metrics["test"]["accuracy"]["low"] < 0.5


def test_images_elsewhere_are_no_failure_of_a_fit(fitted, tmp_path):
    work, done, _ = fitted
    where = ("--cache", work / "cache", "--out", tmp_path / "run", "-l", "penultimate", "--head", "ridge")
    metrics = run_json("fit", done["features"], *where, "--data", tmp_path / "nowhere")
    assert any("the images are not found" in note for note in metrics["notes"])


def test_bad_images_are_told_and_counted(photos, tmp_path):
    data = tmp_path / "data"
    (data / "a").mkdir(parents=True)
    (data / "a" / "bad.jpg").write_bytes(b"")
    (data / "a" / "good.png").write_bytes((photos / "val" / "dark" / "0.png").read_bytes())
    arguments = ("extract", data, "-m", "builtin", "--cache", tmp_path / "cache")
    result = run(*arguments)
    assert "1 bad" in result.stdout
    assert "bad: a/bad.jpg: empty (no bytes)" in result.stderr
    assert "more than --max-bad 0.1" in run(*arguments, "--max-bad", 0.1, code=1).stderr
    [row] = run_json("cache", "info", "data", "--cache", tmp_path / "cache")["bad_rows"]
    assert row == {"id": "a/bad.jpg", "status": "empty", "reason": "no bytes"}


def test_a_dry_run_has_nothing_to_trace(photos, tmp_path):
    assert "--profile" in run("extract", photos, "--dry-run", "--profile", tmp_path / "trace.json", code=2).stderr


def test_images_that_are_all_bad_are_an_error_and_kept_as_rows(tmp_path):
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "bad.jpg").write_bytes(b"")
    arguments = ("extract", tmp_path / "data", "-m", "builtin", "--cache", tmp_path / "cache")
    assert "none of 1 image can be used. See why with: pipeline.py cache info" in run(*arguments, code=1).stderr
    [row] = run_json("cache", "info", "data", "--cache", tmp_path / "cache")["bad_rows"]
    assert row["status"] == "empty"
    assert "1 bad" in run(*arguments, "--part", "1/1").stdout  # of which there are others


def test_a_dry_run_writes_nothing(photos, tmp_path):
    done = run_json("extract", photos, "-m", "builtin", "--cache", tmp_path / "cache", "--dry-run")
    assert (done["rows"], done["to_compute"], done["bytes"]) == (34, 34, 34 * 128 * 4)
    assert done["images_per_s"] > 0
    rounded = 34 * 0.05 / done["images_per_s"] ** 2  # what the last digit of a low speed makes of the time
    assert done["estimated_s"] == pytest.approx(34 / done["images_per_s"], abs=0.1 + 2 * rounded)
    said = run("extract", photos, "-m", "builtin", "--cache", tmp_path / "cache", "--dry-run", "--views", 4).stdout
    assert re.match(r"photos/.*: 34 of 34 images to compute, 69\.6 kB to write; .* are free\nAbout \d+ s at", said)
    assert not (tmp_path / "cache").exists()


def test_every_option_of_extract_reaches_the_extraction(monkeypatch, tmp_path):
    asked: list[ExtractSpec] = []
    summary = {"bad": 0, "rows": 0}
    monkeypatch.setattr("extract.run.extract", lambda spec, bar: asked.append(spec) or summary)
    numbers = ("--views", 3, "--view-seed", 7, "--no-view-flips", "--tf32", "--decoder", "scaled")
    speed = ("--compile", "inductor", "--device", "cuda:0,cuda:1", "-j", 5, "--profile", tmp_path / "trace.json")
    run_json("extract", "photos", *numbers, *speed)
    run_json("extract", "photos")
    chosen, default = asked
    assert (chosen.views, chosen.view_seed, chosen.view_flips) == (3, 7, False)
    assert (chosen.tf32, chosen.decoder) == (True, "scaled")
    assert (chosen.compile, chosen.device, chosen.workers) == ("inductor", "cuda:0,cuda:1", 5)
    assert chosen.profile == tmp_path / "trace.json"
    assert default == ExtractSpec("photos")


def test_views_and_a_trace_come_with_an_extraction(photos, tmp_path):
    arguments = ("-m", "builtin", "--cache", tmp_path / "cache", "--views", 3, "--compile", "none")
    done = run_json("extract", photos, *arguments, "--profile", tmp_path / "trace.json")
    with h5py.File(done["path"]) as file:
        assert list(file["layers"]) == ["penultimate", "penultimate@1", "penultimate@2"]
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert run_json("extract", photos, *arguments, "--view-seed", 1, "--dry-run")["to_compute"] == 34
    assert run_json("extract", photos, *arguments, "--dry-run")["to_compute"] == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("extract", "nowhere"), "nowhere"),
        (("extract", "{photos}", "-m", "resnet19"), "no model 'resnet19'"),
        (("extract", "{photos}", "-m", "builtin", "-l", "layer9"), "no layer 'layer9'"),
        (("extract", "{photos}", "-m", "builtin", "-l", "layer1:mean"), "no pool 'mean'"),
        (("extract", "{photos}", "-m", "builtin", "--weights", "none.pth"), "no such weights file"),
        (("extract", "{photos}", "-m", "builtin", "--mean", "1,2"), "mean and std"),
        (("extract", "{photos}", "-m", "builtin", "--mean", "a,b,c"), "not three numbers"),
        (("extract", "{photos}", "-m", "builtin", "--std", "inf,1,1"), "mean and std"),
        (("extract", "{photos}", "-m", "builtin", "--std", "1,nan,1"), "mean and std"),
        (("extract", "{photos}", "-m", "builtin", "--crop-size", "40"), "a crop of 40 pixels"),
        (
            ("extract", "{photos}", "-m", "alexnet", "--resize-size", "16", "--crop-size", "16", "--weights", "none"),
            "cannot take 16 x 16 pixels",
        ),
        (("extract", "{photos}", "-m", "shufflenet_v2_x0_5", "--weights", "none", "-l", "stage2.0.size"), "no tensor"),
        (("extract", "{photos}", "-m", "torchvision:"), "no model ''"),
        (("extract", "{photos}", "-m", "builtin", "--cache", "/dev/null/cache"), "cannot be written"),
        (("extract", "{photos}", "-m", "builtin", "--name", "../up"), "is no name"),
        (("extract", "{photos}", "-m", "builtin", "--device", "abacus"), "no device 'abacus'"),
        (("extract", "{photos}", "-m", "builtin", "--device", "cpu,"), "no device ''"),
        (("extract", "{photos}", "-m", "builtin", "--device", "cpu", "--precision", "fp16"), "slowly"),
        (("extract", "{photos}", "-m", "builtin", "--device", "cpu", "--tf32"), "TF32 is a way to compute fp32"),
        (("extract", "{photos}", "-m", "builtin", "--device", "cpu", "--decoder", "gpu"), "no GPU decodes images"),
        (("extract", "{photos}", "-m", "builtin", "--profile", "no/trace.json"), "the trace cannot be written"),
        (("fit", "nothing"), "no features 'nothing'"),
        (("fit", "nothing", "--strategy", "tail", "--min-gain", "0.02"), "--min-gain is for a strategy that chooses"),
        (("fit", "nothing", "--head", "ridge", "--min-gain", "0.02"), "--min-gain is for a strategy that chooses"),
        (("fit", "nothing", "--min-gain", "0.02"), "no features 'nothing'"),
        (("predict", "nothing", "{photos}"), "no run of that name or path"),
        (("layers", "resnet19"), "no model 'resnet19'"),
        (("cache", "info", "nothing"), "no features 'nothing'"),
    ],
)
def test_what_is_wrong_is_one_line_or_one_object(args, said, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = tuple(arg.format(photos=photos) for arg in args)
    result = run(*args, code=1)
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    error = run_json(*args, code=1)["error"]
    assert set(error) == {"type", "what", "where", "remedy"}
    assert said in f"{error['where']} {error['what']}"


@pytest.mark.parametrize("options", [("--alpha", 1), ("--answer-accuracy", 2), ("--hold-out", 0.9), ("--hold-out", 0)])
def test_a_share_out_of_range_is_told_by_the_option_that_was_typed(options):
    assert f"Invalid value for '{options[0]}'" in run("fit", "photos", *options, code=2).stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-l", "layer9"), "no layer 'layer9' (nearest: 'layer"),
        (("--head", "logistics"), "nearest: 'logistic'"),
        (("--head", "sklearn.linear_model.Ridge"), "a regressor and no classifier"),
        (("--head", "sklearn.naive_bayes.GaussianNB", "--param", "depth=1"), "no parameter 'depth'"),
        (("--head", "sklearn.neural_network.MLPClassifier", "--param", "max_iter=2"), "cannot be kept in a bundle"),
        (("--param", "C=1"), "logistic"),
        (("--param", "C"), "C"),
        (("--head", "knn", "--class-weight", "balanced"), "cannot weigh classes"),
        (("--protocol", "vtab"), "no protocol 'vtab'"),
        (("--protocol", "kornblith", "--few-shot", "2"), "draws no images"),
        (("--protocol", "clip", "--multi-label"), "exclude each other"),
        (("--protocol", "clip", "--metric", "macro_f1"), "no metric of clip 'macro_f1'"),
        (("--metric", "f1"), "no metric 'f1'"),
        (("--group", "speaker-([a-z]+)"), "matches no image"),
        (("--group", "("), "is no pattern"),
        (("--group", "png"), "of one group"),
        (("--labels", "none.csv"), "cannot read the labels"),
        (("--labels", "broken.csv"), "3 cells where two belong"),
        (("--labels", "lonely.csv"), "fewer than 2 training images of 'lonely'"),
        (("--out", "taken"), "is not a run of ours"),
    ],
)
def test_a_fit_that_cannot_be_is_one_line_or_one_object(fitted, tmp_path, monkeypatch, options, said):
    work, done, _ = fitted
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    (tmp_path / "broken.csv").write_text("path,label\na,b,c\n")
    rows = [f"train/dark/{i}.png,{'lonely' if i == 0 else 'ab'[i % 2]}" for i in range(12)]
    (tmp_path / "lonely.csv").write_text("\n".join(["path,label", *rows, "val/dark/0.png,a"]) + "\n")
    arguments = ("fit", done["features"], "--cache", work / "cache", "--out", "run", *options)
    result = run(*arguments, code=1)
    assert result.stdout == ""
    assert said in result.stderr
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    error = run_json(*arguments, code=1)["error"]
    assert said in f"{error['where']} {error['what']}"
    assert error["remedy"]
    assert {path.name for path in tmp_path.iterdir()} == {"taken", "broken.csv", "lonely.csv"}


def test_wrong_usage_exits_with_2():
    run("extract", code=2)
    run("extract", "x", "--precision", "fp8", code=2)
    run("nonsense", code=2)
    run("extract", "x", "--seed", 2**32, code=2)
    run("extract", "x", "--views", 0, code=2)
    run("extract", "x", "--views", 65, code=2)
    run("extract", "x", "--view-seed", -1, code=2)
    run("extract", "x", "--decoder", "quick", code=2)
    run("extract", "x", "--compile", "gcc", code=2)
    run("compare", code=2)
    run("fit", "x", "--out", __file__, code=2)
    for option in ("--cv 1", "--few-shot 0", "--draws 4", "--class-weight heavy", "--duplicates maybe"):
        run("fit", "x", *option.split(), code=2)
    for option in ("--device tpu", "--strategy best", "--jobs 0", "--seed -1", "--alpha half"):
        run("fit", "x", *option.split(), code=2)
    for option in ("--budget 0", "--budget soon", "--min-gain 1", "--models"):
        run("advise", "x", *option.split(), code=2)


def test_layers_are_listed_with_their_cost():
    done = run_json("layers", "squeezenet1_1")
    assert done["penultimate"] == "features.12.cat"
    rows = {row["layer"]: row for row in done["layers"]}
    assert rows["features.12"]["shape"] == [512, 13, 13]
    assert rows["features.12"]["note"] == "end of a stage"
    assert rows["penultimate"]["compute"] < 1
    everything = run_json("layers", "squeezenet1_1", "--all")["layers"]
    assert len(everything) > len(done["layers"])
    assert "layer3" in run("layers", "builtin").stdout


def test_models_are_listed_with_their_weights():
    done = {model["model"]: model for model in run_json("models")["models"]}
    assert done["builtin:cifar_resnet14"]["weights"] == done["builtin:cifar_resnet14"]["local"] == ["CIFAR10"]
    assert done["resnet50"]["parameters"] == 25_557_032
    said = run("models").stdout
    assert "mobilenet_v3_large" in said
    assert "CIFAR10 *" in said


def test_the_cache_is_listed(fitted):
    work, done, _ = fitted
    listed = run_json("cache", "ls", "--cache", work / "cache")["feature_sets"]
    assert [each["features"] for each in listed].count(done["features"]) == 1
    assert done["features"] in run("cache", "ls", "--cache", work / "cache").stdout
    assert done["key"] in run("cache", "info", "photos", "--cache", work / "cache").stdout


def test_the_doctor_looks_at_the_machine(tmp_path):
    done = run_json("doctor", "--cache", tmp_path)
    assert done["problems"] == []
    assert run_json("doctor", "--cache", "/proc/nowhere", code=1)["problems"]
    assert "JPEG" in done["checks"]["image formats"]
    assert done["checks"]["bf16"] in ("computed", "emulated, slowly")
    assert {name: done["checks"][f"extra {name}"] for name in ("parquet", "turbo", "openvino")} == {
        name: "installed" if find_spec(module) else "not installed"
        for name, module in {"parquet": "pyarrow", "turbo": "simplejpeg", "openvino": "openvino"}.items()
    }


def test_demo_goes_the_whole_road_and_computes_nothing_twice(tmp_path, monkeypatch):
    every = load_digits()
    third = Bunch(images=every.images[::3], target=every.target[::3])  # the whole of it is run by the README's command
    monkeypatch.setattr("classify.demo.load_digits", lambda: third)
    done = run_json("demo", "--cache", tmp_path / "cache", "--out", tmp_path / "run")
    assert done["first"]["rows"] == done["first"]["computed"] == 599
    assert (done["second"]["computed"], done["second"]["reused"]) == (0, 599)
    assert len(done["fit"]["per_layer"]) == 4
    assert done["fit"]["test"]["accuracy"]["value"] > 0.9
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_closed_pipe_is_no_error(photos, fitted):
    work, _, _ = fitted
    command = [sys.executable, str(ROOT / "pipeline.py"), "predict", str(work / "run"), str(photos)]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        found = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert found.stderr == ""
    assert found.returncode == 0


def test_an_interrupt_is_told_in_one_line_or_one_object(photos, tmp_path, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("extract.run.run_plan", interrupt)
    arguments = ("extract", photos, "-m", "builtin", "--cache", tmp_path / "cache")
    assert "what was finished is kept" in run(*arguments, code=130).stderr
    assert run_json(*arguments, code=130)["error"]["type"] == "Interrupted"
