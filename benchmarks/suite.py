"""Several measurements behind one command: their figures as JSON, and as a page that is made from the JSON alone."""

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.extract.harness import CORES, ROOT, Figures, Numbers, Skipped
from benchmarks.extract.report import shown, table


@dataclass(frozen=True)
class Suite:
    """Measurements by name, each told whether it is to be quick; the title of their page, and what stands above it.

    `name` is that of the module under `benchmarks`, and of the files beside it.
    """

    name: str
    about: str
    title: str
    lead: str
    packages: tuple[str, ...]
    measurements: Mapping[str, Callable[[bool], Figures]]

    @property
    def command(self) -> str:
        """What makes all the figures."""
        return f"python -m benchmarks.{self.name} --write"

    def main(self) -> int:
        """Measure what is asked for, all of it by default; 1 where a goal is not met."""
        parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{self.name}", description=self.about)
        parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(self.measurements)}")
        parser.add_argument("--quick", action="store_true", help="one round, the smallest sizes")
        parser.add_argument("--write", action="store_true", help="write the figures beside this folder")
        options = parser.parse_args()
        if strange := set(options.names) - self.measurements.keys():
            parser.error(f"no measurement {', '.join(sorted(strange))}")
        lines = []
        for name in options.names or self.measurements:
            lines.append(self.measured(name, options.quick))
            print(json.dumps(lines[-1]), flush=True)
            if options.write:
                self.write(lines[-1:], ROOT / "benchmarks")
        return int(any(goal["met"] is False for line in lines for goal in line["goals"]))

    def measured(self, name: str, quick: bool) -> Numbers:
        """Carry out a measurement; one that the machine has no room for says so."""
        began = time.perf_counter()
        try:
            found = asdict(self.measurements[name](quick))
        except Skipped as reason:
            found = asdict(Figures([], f"Skipped: {reason}.", []))
        return {"name": name, "quick": quick, **found, "seconds": round(time.perf_counter() - began, 1)}

    def write(self, lines: Sequence[Numbers], folder: Path) -> None:
        """Write NAME.json and NAME.md in the order of the measurements; what was not measured now keeps its figures."""
        path = folder / f"{self.name}.json"
        before = json.loads(path.read_text(encoding="utf-8"))["measurements"] if path.exists() else []
        known = {line["name"]: line for line in before} | {line["name"]: line | self._made() for line in lines}
        found = [known[name] for name in self.measurements if name in known]
        text = json.dumps({"command": self.command, "measurements": found}, indent=2)
        path.write_text(text + "\n", encoding="utf-8")
        (folder / f"{self.name}.md").write_text(self.page(found), encoding="utf-8")

    def _made(self) -> Numbers:
        """Say when and with what a measurement was made."""
        versions = {"python": platform.python_version(), **{name: version(name) for name in self.packages}}
        machine = f"{platform.system()} {platform.machine()}, {CORES} cores"
        return {"date": datetime.now(UTC).date().isoformat(), "machine": machine, "versions": versions}

    def page(self, measurements: Sequence[Numbers]) -> str:
        """Return the figures as Markdown."""
        goals = [goal for each in measurements for goal in each["goals"]]
        met, open_ = (sum(goal["met"] is value for goal in goals) for value in (True, None))
        return f"""# {self.title}

`{self.command}`

{self.lead}

## Goals

{met} of {len(goals)} met, {open_} not to be told.

{table([{**goal, "met": {True: "yes", False: "**no**", None: ""}[goal["met"]]} for goal in goals])}

{"".join(_section(each) for each in measurements)}"""


def _section(each: Numbers) -> str:
    made = ", ".join(f"{name} {version}" for name, version in each["versions"].items())
    short = " A quick run." if each["quick"] else ""
    facts = "; ".join(f"{name.replace('_', ' ')}: {shown(value)}" for name, value in each["facts"].items())
    parts = [f"## {each['name']}", f"{each['date']}, {each['machine']}; {made}; {each['seconds']:,} s.{short}"]
    parts += [part for part in (each["note"], each["rows"] and table(each["rows"]), facts and f"{facts}.") if part]
    return "\n\n".join(parts) + "\n\n"
