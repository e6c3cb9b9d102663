import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sample_report as sample
from click.testing import CliRunner

import pipeline
from classify.rebuilt import rebuild
from classify.report import wanted_thumbnails
from classify.runs import Evidence, write_evidence
from extract.errors import FitError

ODD = "=cmd|' /C calc'!A0 <b>&amp;\udce4.png"


def written(folder: Path, **known: Any) -> str:
    """Write the evidence of a run, and return its page."""
    folder.mkdir(exist_ok=True)
    predictions, findings = known.pop("predictions", sample.predictions()), sample.findings()
    findings = {
        name: [{**row, **({"id": ODD} if "id" in row else {})} for row in rows] for name, rows in findings.items()
    }
    pictures = sample.thumbnails(wanted_thumbnails(predictions, findings))
    write_evidence(folder, Evidence(known.get("metrics", sample.metrics()), predictions, [], findings, {**pictures}))
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_comes_out_the_same_with_its_pictures(tmp_path):
    before = written(tmp_path / "run")
    done = rebuild(str(tmp_path / "run"))
    assert Path(done["report"]).read_text(encoding="utf-8") == before
    assert done["pictures"] == done["wanted"] > 5


def test_of_several_labels_too(tmp_path):
    before = written(tmp_path / "run", metrics=sample.multi_metrics(), predictions=sample.multi_predictions())
    rebuild(str(tmp_path / "run"))
    assert (tmp_path / "run" / "report.html").read_text(encoding="utf-8") == before


def test_a_page_that_is_gone_comes_back_without_pictures(tmp_path):
    written(tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    assert rebuild(str(tmp_path / "run"))["pictures"] == 0
    assert "<img" not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_it_is_that_of_a_fit(make_features, run, tmp_path):
    run(make_features(np.arange(60) % 2, ["cat", "dog"]))
    page = tmp_path / "run" / "report.html"
    before = page.read_bytes()
    page.write_bytes(b"")
    rebuild(str(tmp_path / "run"))
    assert page.read_bytes() == before


def test_files_that_make_no_page_are_an_error_of_ours(tmp_path):
    before = written(tmp_path / "run")
    path = tmp_path / "run" / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "confusion": 3, "per_class": 7, "cv": [1]}))
    with pytest.raises(FitError, match="its files make no page"):
        rebuild(str(tmp_path / "run"))
    assert (tmp_path / "run" / "report.html").read_text(encoding="utf-8") == before


def test_the_command_says_where_the_page_lies(tmp_path, monkeypatch):
    written(tmp_path / "run")
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    done = CliRunner().invoke(pipeline.main, ["report", str(tmp_path / "run"), "--json", "--open"])
    assert done.exit_code == 0, done.stderr
    page = tmp_path / "run" / "report.html"
    assert Path(json.loads(done.stdout)["report"]) == page
    assert shown == [page.as_uri()]
    lost = CliRunner().invoke(pipeline.main, ["report", str(tmp_path / "nothing")])
    assert lost.exit_code == 1
    assert "no run of that name" in lost.stderr
