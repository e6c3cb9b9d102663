"""What the doctor looks at."""

import tomllib
from pathlib import Path

import pytest

import pipeline
from extract import catalogue
from extract.catalogue import EXTRAS, examine
from extract.errors import DecoderError

ROOT = Path(pipeline.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOR_DEVELOPERS = {"test", "dev"}


def test_every_extra_is_looked_at():
    assert set(EXTRAS) == set(PROJECT["optional-dependencies"]) - FOR_DEVELOPERS


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        (("json", "csv"), "installed"),
        (("json", "no_such_module"), "without no_such_module"),
        (("no_such_module", "nor_this"), "not installed"),
    ],
)
def test_an_extra_is_there_in_whole_in_part_or_not_at_all(modules, said, monkeypatch, tmp_path):
    monkeypatch.setattr(catalogue, "EXTRAS", {"some": modules})
    assert examine(tmp_path)["checks"]["extra some"] == said


def test_a_machine_that_is_well_has_no_problems(tmp_path):
    found = examine(tmp_path / "cache")
    assert found["problems"] == []
    assert found["checks"]["decoding processes"] == "start"
    assert "writable, " in found["checks"]["cache"]
    assert "GB free" in found["checks"]["cache"]
    assert {"python", "torch", "device", "bf16"} <= found["checks"].keys()


def test_processes_that_do_not_start_are_a_problem(tmp_path, monkeypatch):
    class Broken(catalogue.Decoder):
        def start(self):
            raise DecoderError("a process ended", where="python", remedy="Check it")

    monkeypatch.setattr(catalogue, "Decoder", Broken)
    found = examine(tmp_path)
    assert found["problems"] == ["python: a process ended. Check it"]
    assert found["checks"]["decoding processes"] == "do not start"
