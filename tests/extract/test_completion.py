import os
import subprocess
import sys

import click
import pytest
from click.shell_completion import ShellComplete

import pipeline
from extract import loader
from extract.backbones import torchvision_nets
from extract.completion import models
from extract.run import extract
from tests.faults.storage import InProcess
from tests.tiny import tiny_folder, tiny_spec


def completed(*words: str) -> list[tuple[str, str]]:
    """What a shell is offered for the last word."""
    *before, last = words
    shell = ShellComplete(pipeline.main, {}, "offshelf", "_OFFSHELF_COMPLETE")
    return [(item.type, item.value) for item in shell.get_completions(list(before), last)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loader, "Decoder", InProcess)
    data = tiny_folder(tmp_path / "pets", per_class=1)
    for taps in ("layer1", "layer2"):
        extract(tiny_spec(data, tmp_path / "cache", taps=(taps,)))
    extract(tiny_spec(data, tmp_path / "cache", name="plants"))
    extract(tiny_spec(data, tmp_path / "elsewhere", name="other"))
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "first" / "metrics.json").write_text("{}")
    return tmp_path


def test_features_are_completed_from_the_cache_that_is_named(here):
    names = [value for _, value in completed("fit", "p")]
    assert names[0] == "pets"
    assert [name for name in names if "/" not in name] == ["pets", "plants"]
    assert len([name for name in names if name.startswith("pets/")]) == 2
    assert completed("advise", "pl") == [("plain", "plants")]
    assert completed("cache", "info", "pl") == [("plain", "plants")]
    assert completed("fit", "--cache", str(here / "elsewhere"), "o") == [("plain", "other")]


def test_runs_are_completed_and_paths_where_there_are_none(here):
    assert completed("predict", "f") == [("plain", "first")]
    assert completed("predict", "elsewhere/r") == [("file", "elsewhere/r")]
    assert completed("extract", "ph") == [("file", "ph")]


def test_networks_are_those_that_can_be_opened():
    found = list(models(click.Context(pipeline.main)))
    assert found[0] == "builtin"
    assert sorted(found[1:]) == sorted(torchvision_nets.names())
    assert ("plain", "resnet50") in completed("layers", "resnet5")
    assert ("plain", "resnet50") in completed("extract", "photos", "-m", "resn")


def test_commands_options_and_choices_are_completed():
    assert ("plain", "extract") in completed("ext")
    assert ("plain", "--strategy") in completed("fit", "photos", "--str")
    assert ("plain", "lp-ft") in completed("fit", "photos", "--strategy", "l")


def test_nothing_heavy_is_imported_for_it():
    code = "import sys, pipeline, extract.completion; sys.exit(bool({'torch', 'sklearn', 'h5py'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_shell_is_given_a_script():
    env = {**os.environ, "_OFFSHELF_COMPLETE": "bash_source"}
    code = "import pipeline; pipeline.main(prog_name='offshelf')"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert "complete -o nosort -F _offshelf_completion offshelf" in done.stdout, done.stderr
