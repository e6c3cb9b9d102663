"""The figures as JSON, and as a page that is made from the JSON alone."""

import json
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.extract.harness import CORES, Numbers
from extract.store.index import versions

PACKAGES = ("timm", "openvino", "simplejpeg")
TITLES = {
    "resnet18": "ResNet-18, small photos",
    "resnet50": "ResNet-50, small photos",
    "mobilenet_v2": "MobileNetV2, small photos",
    "squeezenet1_1": "SqueezeNet 1.1, small photos",
    "large": "ResNet-18, photos of 12 megapixels",
    "taps": "More taps",
    "views": "More views",
    "startup": "Nothing new",
    "equal": "Equal rows",
    "gpu": "On a GPU",
}
HIDDEN = ("runs",)


def write_figures(lines: Sequence[Numbers], folder: Path) -> Numbers:
    """Write extract.json and extract.md, and return all figures; what was not measured now keeps its own."""
    path = folder / "extract.json"
    before = json.loads(path.read_text(encoding="utf-8"))["measurements"] if path.exists() else []
    known = {line["name"]: line for line in before} | {line["name"]: line | _made() for line in lines}
    figures = {
        "command": "python -m benchmarks.extract --write",
        "measurements": [known[name] for name in TITLES if name in known],
    }
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (folder / "extract.md").write_text(page(figures), encoding="utf-8")
    return figures


def _made() -> Numbers:
    """Say when and with what a measurement was made."""
    machine = f"{platform.system()} {platform.machine()}, {_processor()}, {CORES} cores"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine,
        "versions": versions() | versions(PACKAGES),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "processor unknown"
    )


def page(figures: Numbers) -> str:
    """Return the figures as Markdown."""
    measurements = figures["measurements"]
    goals = [goal for each in measurements for goal in each.get("goals", ())]
    met, open_ = (sum(goal["met"] is value for goal in goals) for value in (True, None))
    return f"""# Extraction, measured

`{figures["command"]}`

{_how()}

## Goals

{met} of {len(goals)} met, {open_} not to be told.

{table([_goal(goal) for goal in goals])}

{"".join(_section(each) for each in measurements)}"""


def _how() -> str:
    return """\
Every figure comes from whole processes on the same files, in interleaved rounds (A B C A B C): the median, and in
brackets the least and the most. `ratio` is images/s over those of the naive script **in the same round**;
`whole ratio` is the same of whole processes with the same number of images, imports and compilation included.
`images per s` is the steady rate: of the others from the end of their first batch to that of their last, of ours from
the first batch that is asked for to the last row on disk. `start s` is what the process took beside its images at that
rate; for ours it holds the reading and hashing of all files, and compilation.

`of limit`: the limit of a core is the operations of the cut network at the peak of a 3x3 convolution (oneDNN, channels
last, one thread on every core at once, the best of three sizes of a ResNet, the best of all rounds), and one decoding
by the fastest decoder; of all cores, so many times as much. `of limit with resize` also grants one antialiased
resizing. Every network is held against the convolutions of a ResNet: depthwise ones cannot come near them.

`foreign cores`: cores that other processes kept busy meanwhile (/proc/stat less what was measured, time stolen by the
host included). Differences below 10 % are noise at any time. Where others took more than a tenth of the machine, ratios
and shares can be off by any factor, and whether a goal is met is not told.

naive: Pillow, torchvision's transforms of the weights, `DataLoader`, fp32, `no_grad`, `np.save`. timm: its own
`create_transform` and weights of its own; it has no SqueezeNet. All else computes the penultimate features of the same
network with the same seeded weights from 224 x 224 pixels, batches of 32; photos are in the page cache. Small photos:
500 x 375, made from those of hymenoptera; large ones: 4,000 x 3,000, mosaics of them. What inductor compiles is cached
between rounds: the first is cold."""


def _goal(goal: Numbers) -> Numbers:
    met = {True: "yes", False: "**no**", None: ""}[goal["met"]]
    return {"goal": goal["goal"], "measured": goal["measured"], "met": met}


def _section(each: Numbers) -> str:
    made = ", ".join(f"{name} {version}" for name, version in each["versions"].items())
    short = " A quick run: one round, few images." if each["quick"] else ""
    parts = [f"## {TITLES[each['name']]}", f"{each['date']}, {each['machine']}; {made}; {each['seconds']:,} s.{short}"]
    if "error" in each or "skipped" in each:
        parts.append(f"**Failed**: {each['error']}" if "error" in each else f"Skipped: {each['skipped']}.")
        return "\n\n".join(parts) + "\n\n"
    parts += [each["note"]] if each["note"] else []
    parts += [table(each["rows"]), *_facts(each["facts"])]
    return "\n\n".join(parts) + "\n\n"


def _facts(facts: Numbers) -> Iterable[str]:
    if facts:
        yield "; ".join(f"{name.replace('_', ' ')}: {shown(value)}" for name, value in facts.items()) + "."


def table(rows: Sequence[Numbers]) -> str:
    """Return rows as a Markdown table of all the columns that any of them has."""
    columns = list(dict.fromkeys(name for row in rows for name in row if name not in HIDDEN))
    lines = ["| " + " | ".join(name.replace("_", " ") for name in columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(shown(row.get(name)) for name in columns) + " |" for row in rows])


def shown(value: Any) -> str:
    if isinstance(value, dict) and value.keys() == {"value", "low", "high"}:
        low, high = shown(value["low"]), shown(value["high"])
        return shown(value["value"]) + (f" ({low} to {high})" if low != high else "")
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {shown(part)}" for name, part in value.items())
    if isinstance(value, float):
        return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.0f}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
