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

import pipeline
from classify.heads import HEADS
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
    metrics = run_json("fit", done["features"], "--cache", work / "cache", "--out", work / "run")
    return work, done, metrics


def test_help_answers_without_the_heavy_imports():
    code = "import sys, pipeline; print({'torch', 'torchvision', 'sklearn', 'h5py', 'numpy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


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
    assert {path.name for path in (work / "run").iterdir()} == {
        "metrics.json",
        "predictions.csv",
        "report.html",
        "bundle",
    }


@pytest.mark.parametrize("head", HEADS)
def test_every_head_is_fitted_and_told(photos, fitted, tmp_path, head):
    work, done, _ = fitted
    arguments = ("fit", done["features"], "--cache", work / "cache", "--out", tmp_path / "run", "-l", "penultimate")
    assert f"Chosen: {head}" in run(*arguments, "--head", head).stdout
    assert run_json("predict", tmp_path / "run", photos / "val" / "dark" / "0.png")["label"] == "dark"


def test_predict_gives_csv_or_json_lines(photos, fitted):
    work, _, _ = fitted
    rows = list(csv.DictReader(io.StringIO(run("predict", work / "run", photos / "val" / "dark").stdout)))
    assert [row["label"] for row in rows] == ["dark"] * 5
    lines = run("predict", work / "run", photos / "val" / "dark", "--json", "--top", 1).stdout.splitlines()
    answers = [json.loads(line) for line in lines]
    assert [answer["id"] for answer in answers] == [row["id"] for row in rows]
    assert answers[0]["top"] == [{"label": "dark", "probability": answers[0]["probability"]}]
    assert answers[0]["status"] == "ok"


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


def test_a_dry_run_writes_nothing(photos, tmp_path):
    done = run_json("extract", photos, "-m", "builtin", "--cache", tmp_path / "cache", "--dry-run")
    assert (done["rows"], done["to_compute"], done["bytes"]) == (34, 34, 34 * 128 * 4)
    assert done["images_per_s"] > 0
    assert done["estimated_s"] == pytest.approx(34 / done["images_per_s"], abs=0.1)
    said = run("extract", photos, "-m", "builtin", "--cache", tmp_path / "cache", "--dry-run", "--views", 4).stdout
    assert re.match(r"photos/.*: 34 of 34 images to compute, 69\.6 kB to write; .* are free\nAbout \d+ s at", said)
    assert not (tmp_path / "cache").exists()


def test_every_option_of_extract_reaches_the_extraction(monkeypatch, tmp_path):
    asked: list[ExtractSpec] = []
    summary = {"bad": 0, "rows": 0}
    monkeypatch.setattr("extract.run.extract", lambda spec, bar: asked.append(spec) or summary)
    numbers = ("--views", 3, "--view-seed", 7, "--tf32", "--decoder", "scaled")
    speed = ("--compile", "inductor", "--device", "cuda:0,cuda:1", "-j", 5, "--profile", tmp_path / "trace.json")
    run_json("extract", "photos", *numbers, *speed)
    run_json("extract", "photos")
    chosen, default = asked
    assert (chosen.views, chosen.view_seed, chosen.tf32, chosen.decoder) == (3, 7, True, "scaled")
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
    assert done["builtin:cifar_resnet14"]["local"]
    assert done["resnet50"]["parameters"] == 25_557_032
    assert "mobilenet_v3_large" in run("models").stdout


def test_the_cache_is_listed(fitted):
    work, done, _ = fitted
    [listed] = run_json("cache", "ls", "--cache", work / "cache")["feature_sets"]
    assert listed["features"] == done["features"]
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


def test_demo_goes_the_whole_road_and_computes_nothing_twice(tmp_path):
    done = run_json("demo", "--cache", tmp_path / "cache", "--out", tmp_path / "run")
    assert done["first"]["rows"] == done["first"]["computed"] == 1797
    assert (done["second"]["computed"], done["second"]["reused"]) == (0, 1797)
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
    assert "What was finished is kept" in run(*arguments, code=130).stderr
    assert run_json(*arguments, code=130)["error"]["type"] == "Interrupted"
