"""The example files for clusters: they can be read, and what they have this program do is what it can."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import pipeline
from extract.commands.extract import _extract_spec as spec_of
from extract.spec import ExtractSpec

EXAMPLES = Path(pipeline.__file__).parent / "docs" / "examples"
SCRIPTS = sorted([*EXAMPLES.glob("*.sbatch"), *EXAMPLES.glob("*.sh")])
MANIFESTS = sorted(EXAMPLES.glob("*.yaml"))


def name_of(path: Path) -> str:
    return path.name


def documents(path: Path) -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def texts(value: Any) -> Iterator[str]:
    """Every text in a manifest; a list of words is one command."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and all(isinstance(each, str) for each in value):
        yield value[0] if len(value) == 1 else shlex.join(value)
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts(each)


def told(text: str) -> Iterator[list[str]]:
    """The arguments of each command of this program in a text, with a number for whatever the shell would put in."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("offshelf "):
            plain = re.sub(r"\$\{?\w+\}?", "3", re.sub(r"\$\(\(.*?\)\)", "3", line))
            yield shlex.split(plain)[1:]


def commands() -> Iterator[tuple[str, list[str]]]:
    for path in SCRIPTS:
        yield from ((path.name, words) for words in told(path.read_text(encoding="utf-8")))
    for path in MANIFESTS:
        for text in texts(documents(path)):
            yield from ((path.name, words) for words in told(text))


def parsed(words: list[str]) -> click.Context:
    """What the program makes of a command line: click raises where it takes it not."""
    group, context = pipeline.main, click.Context(pipeline.main)
    while True:
        name, command, words = group.resolve_command(context, words)
        if not isinstance(command, click.Group):
            return command.make_context(name, words)
        group, context = command, click.Context(command)


@pytest.mark.skipif(shutil.which("bash") is None, reason="they are scripts for bash")
@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_a_script_is_one_that_bash_reads(path):
    done = subprocess.run(
        [shutil.which("bash") or "bash", "-n", str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.sbatch")), ids=name_of)
def test_what_slurm_asks_for_since_2022_is_said(path):
    script = path.read_text(encoding="utf-8")
    if "--gpus-per-task" in script:
        assert "#SBATCH --ntasks=" in script, "or sbatch refuses it"
    if "\nsrun " in script and "#SBATCH --cpus-per-task" in script:
        assert "\nexport SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK" in script, "or srun gives one core"
    if "#SBATCH --requeue" in script:
        assert "#SBATCH --open-mode=append" in script, "or the log of before is lost"


@pytest.mark.parametrize("path", MANIFESTS, ids=name_of)
def test_a_manifest_says_what_it_is(path):
    for document in documents(path):
        assert {"apiVersion", "kind", "metadata", "spec"} <= document.keys()


def test_every_example_has_this_program_do_what_it_can():
    found = list(commands())
    assert {name for name, _ in found} == {path.name for path in (*SCRIPTS, *MANIFESTS)} - {"slurm-submit.sh"}
    specs = {}
    for name, words in found:
        with parsed(words) as context:
            if context.command.name == "extract":
                specs[name] = spec_of(context.params["data"], context.params)
    assert {name for name, spec in specs.items() if spec.part} == {"slurm-part.sbatch", "kubernetes-parts.yaml"}
    assert {name for name, spec in specs.items() if spec.engine.name == "ray"} == {
        "slurm-ray.sbatch",
        "kuberay-rayjob.yaml",
    }
    assert all(_is_whole(spec) for spec in specs.values())


def _is_whole(spec: ExtractSpec) -> bool:
    """Whether one cache and one name are meant wherever it runs."""
    return spec.cache.is_absolute() and Path(spec.data).is_absolute() and spec.name == "photos"


def test_parts_are_as_many_as_are_started():
    script = (EXAMPLES / "slurm-part.sbatch").read_text(encoding="utf-8")
    assert re.search(r"--array=1-(\d+)", script)[1] == re.search(r"PARTS=(\d+)", script)[1]
    [job] = documents(EXAMPLES / "kubernetes-parts.yaml")
    [args] = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert re.search(r'\+ 1\)\)/(\d+)"', args)[1] == str(job["spec"]["completions"])
