"""The figures of the fault tests as JSON and as a page."""

import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from extract.spec import available_cores
from extract.store.index import versions

ABOUT = ("test", "goal", "note", "passed", "seconds", "error", "skipped")


def write_figures(lines: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write faults.json and faults.md; tests that did not run this time keep their figures."""
    path = folder / "faults.json"
    before = json.loads(path.read_text(encoding="utf-8"))["tests"] if path.exists() else []
    new = {line["test"]: line for line in lines}
    kept = [new.pop(line["test"], line) for line in before]
    head = {
        "command": "python -m benchmarks.faults --write",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {available_cores()} cores, no GPU",
        "versions": versions(),
    }
    tests = [*kept, *new.values()]
    path.write_text(json.dumps(head | {"tests": tests}, indent=2) + "\n", encoding="utf-8")
    (folder / "faults.md").write_text(page(head, tests), encoding="utf-8")


def page(head: dict[str, Any], tests: Sequence[dict[str, Any]]) -> str:
    """Return the figures as Markdown."""
    made = ", ".join(f"{name} {version}" for name, version in head["versions"].items())
    rows = "\n".join(f"| {' | '.join(_cells(test))} |" for test in tests)
    passed, skipped = (sum(test["passed"] is value for test in tests) for value in (True, None))
    return f"""# Fault tests

`{head["command"]}`, {head["date"]}, {head["machine"]}; {made}.

The 23 fault tests of the reliability notes, against this project's cache and bundles. Each runs in a process and a
folder of its own, on ext4 upon a virtual disk, on a machine shared with other work: seconds say little, counts do not
depend on it. Runs that are killed or failed are forks of a process that has everything imported, on tiny images and
with the built-in network; after each, every byte of what was committed is looked at, the extraction is run again, and
every row is compared with those of an undisturbed run. Power cuts are shutdowns of an ext4 in a file without its
journal being written (FS_IOC_SHUTDOWN), and a new mount; the figures without fsync, by which all is lost, show that the
cut is one. What is drawn at random is drawn by fixed seeds; moments of kills depend on the machine. In brackets: where
a number or a goal is not that of the list.

{passed} of {len(tests)} passed, {skipped} skipped.

| test | goal | measured | passed | s |
|---|---|---|---|---|
{rows}
"""


def _cells(test: dict[str, Any]) -> tuple[str, ...]:
    goal = f"{test['goal']} ({test['note']})" if "note" in test else test["goal"]
    found = ", ".join(f"{name.replace('_', ' ')} {_shown(value)}" for name, value in test.items() if name not in ABOUT)
    measured = test.get("error") or (f"skipped: {test['skipped']}" if "skipped" in test else found)
    return test["test"], goal, measured, {True: "yes", False: "**no**", None: ""}[test["passed"]], str(test["seconds"])


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
