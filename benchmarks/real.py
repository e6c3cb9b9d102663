"""Real images through real weights: test accuracy of frozen features beside the reference figures of MANIFEST.md.

    python -m benchmarks.real [--data DIR] [--work DIR] [--quick]

Six data sets, three networks, the penultimate layer and the logistic head. The figures go to
`benchmarks/real.json` and `benchmarks/real.md`. With `--work` the unpacked images and the cache stay, so that a run
which was stopped goes on where it was. `--quick` takes two sets and the two small networks, and only prints.
"""

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.image_sets import NETWORKS, OMNIGLOT_CHARACTERS, ROOT, SETS, ImageSet, data_folder
from classify.bundle import PACKAGES
from classify.fit import FitSpec, fit
from extract.run import extract
from extract.spec import BackboneSpec, ExtractSpec, available_cores
from extract.store.index import versions

TOLERANCE = 0.02
"""By how much a figure may stay below its reference."""

QUICK = (("hymenoptera", "mnist"), ("squeezenet1_1", "mobilenet_v2"))


def measure(images: ImageSet, network: str, data: Path, work: Path) -> dict[str, Any]:
    """Extract, fit and test one network on one data set: -> one row of the table."""
    spec = ExtractSpec(
        data=str(images.prepare(data, work / "images")),
        name=images.name,
        backbone=BackboneSpec(network, str(data / "weights" / NETWORKS[network]), overrides=images.overrides),
        cache=work / "cache",
    )
    extracted = _timed(work / f"{images.name}-{network}.json", extract(spec))
    metrics = fit(FitSpec(extracted["path"], strategy="linear", out=work / "runs" / f"{images.name}-{network}"))
    test, reference = metrics["test"]["accuracy"], images.references.get(network)
    return {
        "set": images.name,
        "case": images.case,
        "network": network,
        **{name: metrics[name] for name in ("n_train", "n_test", "params", "folds", "warnings")},
        "classes": len(metrics["classes"]),
        "bad": extracted["bad"],
        "cv": metrics["cv"]["accuracy"],
        "test": test,
        "reference": reference,
        "difference": None if reference is None else round(test["value"] - reference, 4),
        "reached": None if reference is None else bool(test["value"] >= reference - TOLERANCE),
        "extract_s": extracted["seconds"],
        "images_per_s": extracted["images_per_s"],
        "fit_s": metrics["seconds"],
    }


def _timed(record: Path, done: dict[str, Any]) -> dict[str, Any]:
    """Return a summary of `extract` with the times of the call that computed all rows, which may be an earlier one."""
    if done["computed"] == done["rows"] or not record.is_file():
        times = {name: done[name] for name in ("seconds", "images_per_s")} if done["computed"] == done["rows"] else {}
        record.write_text(json.dumps(times or {"seconds": None, "images_per_s": None}), encoding="utf-8")
    return done | json.loads(record.read_text(encoding="utf-8"))


def write_figures(rows: list[dict[str, Any]], folder: Path) -> None:
    """Write real.json and real.md: the figures so far, under what they were made with."""
    head = {
        "command": "python -m benchmarks.real",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {available_cores()} cores, no GPU asked for",
        "versions": versions(PACKAGES),
        "tolerance": TOLERANCE,
        "omniglot_characters": OMNIGLOT_CHARACTERS,
    }
    (folder / "real.json").write_text(json.dumps(head | {"rows": rows}, indent=2) + "\n", encoding="utf-8")
    (folder / "real.md").write_text(page(head, rows), encoding="utf-8")


def page(head: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return the figures as Markdown."""
    made = ", ".join(f"{name} {version}" for name, version in head["versions"].items())
    characters = head["omniglot_characters"]
    return f"""# Real images, real weights

`{head["command"]}`, {head["date"]}, {head["machine"]}; {made}.

Penultimate features of frozen networks, default options but where said, logistic head; its C was chosen by
cross-validation on the training images alone. Accuracies in percent, with 95 % intervals. A reference is the figure of
`shared/data/MANIFEST.md`; it is reached where the difference is {-100 * TOLERANCE:+.0f} or more. Omniglot: the first
{characters} characters of each zip, 15 drawings of each for training and 5 for the test. Spectrograms: 25 recordings of
each of the six speakers a digit; the split is by recording, so that all speakers are in training and test alike.
CIFAR-10, MNIST and the spectrograms with `--resize-size 224`, as the references were made: the whole of the square
image; `spectrograms-cropped` is with the weights' own preset, which resizes to 256 and cuts the border off.
Seconds and images/s are of a machine shared with other work, and say little about the speed of a quiet one.

{table(rows)}
{_absent(rows)}"""


def _absent(rows: list[dict[str, Any]]) -> str:
    """Say what a run that was stopped did not come to."""
    measured = {(row["set"], row["network"]) for row in rows}
    wanted = [(images.name, network) for images in SETS for network in images.networks]
    absent = [" with ".join(pair) for pair in wanted if pair not in measured]
    return f"\nNot measured (the run was stopped): {', '.join(absent)}.\n" if absent else ""


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    columns = ("set", "network", "train / test", "classes", "CV", "test", "reference", "difference")
    columns += ("extract s", "images/s", "fit s")
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(_cells(row)) + " |" for row in rows])


def _cells(row: dict[str, Any]) -> Iterator[str]:
    yield from (row["set"], row["network"], f"{row['n_train']} / {row['n_test']}", str(row["classes"]))
    yield from (_interval(row["cv"]), _interval(row["test"]))
    yield "" if row["reference"] is None else f"{100 * row['reference']:.1f}"
    yield (
        "" if row["difference"] is None else f"{100 * row['difference']:+z.1f}{'' if row['reached'] else ' **missed**'}"
    )
    yield from ("" if row[name] is None else f"{row[name]:.0f}" for name in ("extract_s", "images_per_s", "fit_s"))


def _interval(metric: dict[str, float]) -> str:
    return f"{100 * metric['value']:.1f} [{100 * metric['low']:.1f}, {100 * metric['high']:.1f}]"


def run(data: Path, work: Path, *, quick: bool) -> list[dict[str, Any]]:
    """Measure every pair, the cheap ones first, and keep the figures after each: a run that is stopped has some."""
    (work / "images").mkdir(parents=True, exist_ok=True)
    names, networks = QUICK if quick else ([images.name for images in SETS], list(NETWORKS))
    rows: list[dict[str, Any]] = []
    for network in networks:
        for images in SETS:
            if images.name in names and network in images.networks:
                rows.append(measure(images, network, data, work))
                print(table(rows[-1:]).splitlines()[-1], flush=True)
                if not quick:
                    write_figures(sorted(rows, key=lambda row: (row["set"], row["network"])), ROOT / "benchmarks")
    return rows


def main() -> int:
    """Run, and say of each reference whether it was reached; 1 where one was not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="holds weights/ and the archives")
    parser.add_argument("--work", type=Path, help="keeps images, cache and runs  [default: a temporary folder]")
    parser.add_argument("--quick", action="store_true", help="two sets, two small networks; prints, keeps no figures")
    options = parser.parse_args()
    if not (options.data / "weights").is_dir():
        parser.error(f"no weights/ in {options.data}: give --data DIR, or set OFFSHELF_DATA")
    with tempfile.TemporaryDirectory(prefix="offshelf-real-") as temporary:
        rows = run(options.data.absolute(), (options.work or Path(temporary)).absolute(), quick=options.quick)
    for row in rows:
        if row["reference"] is not None:
            word = "reached" if row["reached"] else "MISSED"
            print(f"{row['set']} {row['network']}: {row['test']['value']:.3f}, reference {row['reference']}: {word}")
    return int(any(row["reached"] is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
