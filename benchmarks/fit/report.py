"""The figures as JSON, and as a page that is made from the JSON alone."""

import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.extract.harness import CORES, Numbers
from benchmarks.extract.report import shown, table

PACKAGES = ("numpy", "scipy", "scikit-learn")
COMMAND = "python -m benchmarks.fit --write"


def write_figures(lines: Sequence[Numbers], folder: Path, names: Sequence[str]) -> None:
    """Write fit.json and fit.md in the order of `names`; what was not measured now keeps its figures."""
    path = folder / "fit.json"
    before = json.loads(path.read_text(encoding="utf-8"))["measurements"] if path.exists() else []
    known = {line["name"]: line for line in before} | {line["name"]: line | _made() for line in lines}
    measurements = [known[name] for name in names if name in known]
    path.write_text(json.dumps({"command": COMMAND, "measurements": measurements}, indent=2) + "\n", encoding="utf-8")
    (folder / "fit.md").write_text(page(measurements), encoding="utf-8")


def _made() -> Numbers:
    """Say when and with what a measurement was made."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    machine = f"{platform.system()} {platform.machine()}, {CORES} cores"
    return {"date": datetime.now(UTC).date().isoformat(), "machine": machine, "versions": versions}


def page(measurements: Sequence[Numbers]) -> str:
    """Return the figures as Markdown."""
    goals = [goal for each in measurements for goal in each["goals"]]
    met, open_ = (sum(goal["met"] is value for goal in goals) for value in (True, None))
    return f"""# Fitting, measured

`{COMMAND}`

Everyone gets the same features and the same folds, in interleaved rounds (A B C A B C): the median, and in brackets the
least and the most. A ratio is of the same round. Where others took more than a tenth of the machine, whether a goal is
met is not told.

## Goals

{met} of {len(goals)} met, {open_} not to be told.

{table([{**goal, "met": {True: "yes", False: "**no**", None: ""}[goal["met"]]} for goal in goals])}

{"".join(_section(each) for each in measurements)}"""


def _section(each: Numbers) -> str:
    made = ", ".join(f"{name} {version}" for name, version in each["versions"].items())
    short = " A quick run." if each["quick"] else ""
    facts = "; ".join(f"{name.replace('_', ' ')}: {shown(value)}" for name, value in each["facts"].items())
    parts = [f"## {each['name']}", f"{each['date']}, {each['machine']}; {made}; {each['seconds']:,} s.{short}"]
    parts += [part for part in (each["note"], table(each["rows"]), facts and f"{facts}.") if part]
    return "\n\n".join(parts) + "\n\n"
