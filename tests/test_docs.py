"""The documentation is true: its commands run and print what it shows, its options exist, its links lead somewhere."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import squeezenet1_1

import pipeline
from benchmarks.image_sets import data_folder, unpack
from tests.warm import warm

ROOT = Path(pipeline.__file__).parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/recipes/*.md"), ROOT / "cache" / "README.md"]
)
REAL = "<!-- real -->"
"""The first line of a page whose commands need the images and weights of $OFFSHELF_DATA."""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NOT_HERE = re.compile(
    r"\bpip install\b|\bpytest\b|\.ci/gate|pipeline\.py demo\b|^offshelf demo\b|-m venv\b|^git |activate$"
)
OTHER_TOOLS = re.compile(r"\b(ruff|pip|pytest|git|pyright|tar -)\b")
"""Lines that show options of programs that are not ours."""
OURS = ("advise.story", "bundle", "compare", "export.story", "finetune.story", "fit", "predict", "rebuilt")
HEAVY = ("extract.run", *(f"classify.{name}" for name in OURS), "torch._dynamo", "onnxscript", "onnxruntime")
"""What most commands import."""


@dataclass
class Step:
    """One thing that a page has its reader do: a command line or a Python block, and the lines it is to print."""

    code: str
    is_python: bool = False
    expected: list[str] = field(default_factory=list)


def steps_of(page: Path) -> Iterator[Step]:
    """Commands of `console` blocks and whole `python` blocks, in the order of the page."""
    for tag, body in FENCE.findall(page.read_text(encoding="utf-8")):
        if tag == "python":
            yield Step(body, is_python=True)
        elif tag == "console":
            yield from _commands(body)


def _commands(body: str) -> Iterator[Step]:
    step = None
    for line in body.replace("\\\n", "").splitlines():
        if line.startswith("$ "):
            if step:
                yield step
            step = Step(line[2:])
        elif step and line.strip() not in ("", "..."):
            step.expected.append(line)
    if step:
        yield step


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def with_steps(*, real: bool = False) -> list[Path]:
    pages = [page for page in PAGES if page.read_text(encoding="utf-8").startswith(REAL) == real]
    return [page for page in pages if any(not NOT_HERE.search(step.code) for step in steps_of(page))]


def shown_commands(page: Path) -> Iterator[list[str]]:
    """Arguments of the commands that are shown in `text` blocks and not run: what a shell would hand over."""
    for tag, body in FENCE.findall(page.read_text(encoding="utf-8")):
        for line in body.replace("\\\n", "").splitlines() if tag == "text" else ():
            if found := re.match(r"\$ (?:\w+=\S+ )*(?:python pipeline\.py|offshelf) (.*?)(?: [|<>&].*)?$", line):
                yield shlex.split(found[1], comments=True)


def picture(kind: str, seed: int) -> Image.Image:
    """Coloured stripes or checks; the seed decides the colours."""
    columns = 1 if kind == "stripes" else 6
    blocks = np.random.default_rng(seed).integers(0, 256, (6, columns, 3), np.uint8)
    return Image.fromarray(np.repeat(blocks, 6 // columns, axis=1)).resize((96, 72), Image.Resampling.NEAREST)


def write_example_set(folder: Path) -> None:
    """Write what docs/guide.md calls the example set: photos/, photos.csv, new/ and weights.pt."""
    rows, seed = ["path,label,split,group"], 0
    for split, count in (("train", 12), ("val", 6)):
        for kind in ("checks", "stripes"):
            (folder / "photos" / split / kind).mkdir(parents=True)
            for number in range(count):
                seed += 1
                name = f"photos/{split}/{kind}/{number:02}.{('jpg', 'png')[number % 2]}"
                picture(kind, seed).save(folder / name)
                rows.append(f"{name},{kind},{split},{kind}-{split}-{number // 2}")
    (folder / "photos.csv").write_text("\n".join(rows) + "\n")
    (folder / "new").mkdir()
    picture("checks", 101).save(folder / "new" / "a.jpg")
    picture("stripes", 102).save(folder / "new" / "b.png")
    (folder / "new" / "broken.jpg").write_bytes(b"not an image")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(squeezenet1_1().state_dict(), folder / "weights.pt")


def run_step(step: Step, folder: Path, python: list[str]) -> str:
    """Run one step in `folder`, where it says python with these words; return what it prints, stderr included."""
    ours = shlex.join([*python, str(ROOT / "pipeline.py")])
    line = re.sub(r"(?<!\S)(python pipeline\.py|offshelf)(?=\s)", lambda _: ours, step.code)
    line = re.sub(r"(?<!\S)python(?=\s)", lambda _: shlex.join(python), line)
    command = [*python, "-c", step.code] if step.is_python else [shutil.which("bash") or "bash", "-c", line]
    # Children resolve packages as this process does, and lines are not wrapped where the page shows them whole.
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{step.code}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def shows(line: str, printed: list[str]) -> bool:
    """Whether a line of a page was printed; `...` inside it stands for anything, and blanks may differ in number."""
    pattern = ".*".join(re.escape(part) for part in " ".join(line.split()).split("..."))
    return any(re.fullmatch(pattern, " ".join(each.split())) for each in printed)


def run_page(page: Path, folder: Path, python: list[str], prepare: Callable[[Path], None] = write_example_set) -> Path:
    """Do what a page says, in `folder`; fails at the first step that does, or that prints something else."""
    prepare(folder)
    for step in steps_of(page):
        if NOT_HERE.search(step.code):
            continue
        printed = run_step(step, folder, python).splitlines()
        absent = [line for line in step.expected if not shows(line, printed)]
        assert not absent, f"{step.code}\nshown: {absent}\nprinted:\n" + "\n".join(printed)
    return folder


@pytest.fixture(scope="module")
def python() -> Iterator[list[str]]:
    """The words for a Python that has imported what is heavy."""
    with warm(ROOT, *HEAVY) as words:
        yield words


@pytest.fixture(scope="module")
def runs(python: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Path, Future[Path]]]:
    """Two pages at a time; the README as its reader does it, with a Python that begins anew for every step."""
    pythons = {page: [sys.executable] if page == ROOT / "README.md" else python for page in with_steps()}
    with ThreadPoolExecutor(2) as pool:
        yield {
            page: pool.submit(run_page, page, tmp_path_factory.mktemp(page.stem), words)
            for page, words in pythons.items()
        }


@pytest.mark.skipif(shutil.which("bash") is None, reason="the pages show commands for a shell")
@pytest.mark.parametrize("page", with_steps(), ids=page_name)
def test_the_commands_of_a_page_run_and_print_what_it_shows(page: Path, runs: dict[Path, Future[Path]]):
    runs[page].result()


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield path + name, command


COMMANDS = dict(commands(pipeline.main))


def unpack_real(folder: Path) -> None:
    """Put the images and the weights of $OFFSHELF_DATA where a page expects them."""
    unpack(data_folder() / "hymenoptera.tar", folder)
    (folder / "weights").symlink_to(data_folder() / "weights")


@pytest.mark.real
@pytest.mark.skipif(not (data_folder() / "weights").is_dir(), reason="no real weights and images: see OFFSHELF_DATA")
@pytest.mark.parametrize("page", with_steps(real=True), ids=page_name)
def test_the_commands_of_a_page_on_real_images_run_and_print_what_it_shows(
    page: Path, tmp_path: Path, python: list[str]
):
    run_page(page, tmp_path, python, unpack_real)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_that_are_only_shown_are_taken_by_the_program(page: Path):
    for arguments in shown_commands(page):
        name = next(name for n in (2, 1) if (name := " ".join(arguments[:n])) in COMMANDS)
        with COMMANDS[name].make_context(name, arguments[len(name.split()) :]):
            pass


@pytest.mark.skipif(shutil.which("bash") is None, reason="the pages show commands for a shell")
def test_every_key_of_a_run_is_described(runs: dict[Path, Future[Path]]):
    metrics = json.loads((runs[ROOT / "docs" / "guide.md"].result() / "runs" / "photos" / "metrics.json").read_text())
    _, _, after = (ROOT / "docs" / "file-formats.md").read_text(encoding="utf-8").partition("| key | holds |\n")
    table = after.partition("\n\n")[0].splitlines()
    assert {key for row in table for key in re.findall(r"`(\w+)`", row.split("|")[1])} == set(metrics)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_of_itself_in_its_help(name: str):
    assert re.search(rf"Examples?: .*python pipeline\.py {name}\b", COMMANDS[name].help or "", re.DOTALL)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_in_a_sentence_what_it_does(name: str):
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            assert re.search(r"^\S.*[.\]]$", parameter.help or ""), parameter.name


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_option_that_a_page_names_exists(page: Path):
    every = [pipeline.main, *COMMANDS.values()]
    parameters = [parameter for command in every for parameter in command.params]
    known = {"--help"}.union(*(parameter.opts + parameter.secondary_opts for parameter in parameters))
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if not OTHER_TOOLS.search(line)]
    assert set(OPTION.findall("\n".join(lines))) <= known


def slugs(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub makes them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_relative_link_leads_somewhere(page: Path):
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in slugs(target), f"{link}: no such heading"
