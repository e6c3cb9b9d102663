"""What more taps and more views of an image cost: in the forward pass alone, and from files to rows.

Run as a program it prints the forward pass alone, on one core.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from benchmarks.extract import photos
from benchmarks.extract.harness import (
    CORES,
    Figures,
    Goal,
    Numbers,
    Place,
    ours,
    program,
    ratios,
    spread,
    timed,
    undisturbed,
)

FOUR = ("layer1", "layer2", "layer3", "penultimate")
ONE = FOUR[-1:]
NETWORKS, PRECISIONS = ("resnet18", "resnet50"), ("fp32", "bf16")
TAPS_COST, VIEWS = 1.1, 4
BATCH, ROUNDS, CALLS = 16, 5, 3
IMAGES = 480


def taps(place: Place) -> Figures:
    """Compare four pooled taps in one pass with one tap."""
    rows = []
    for network in NETWORKS[: 1 if place.quick else None]:
        for precision in PRECISIONS:
            found = timed(program("taps", network, precision), {"OMP_NUM_THREADS": "1"})
            rows.append({"what": "forward, 1 core", "network": network, "precision": precision} | _kept(found))
    rows += [_end_to_end(place, precision) for precision in PRECISIONS]
    return Figures(rows, NOTE_TAPS, [goal for row in rows for goal in undisturbed([_goal(row)], _foreign(row))])


NOTE_TAPS = "Four taps: the ends of layer1 to layer3, and penultimate, average-pooled; `cost` is their time over one's."


def _goal(row: Numbers) -> Goal:
    cost = row["cost"]["value"]
    goal = f"4 pooled taps in one pass, {row['what']}, {row['network']} {row['precision']}: <= {TAPS_COST}x of one"
    return Goal(goal, f"{cost:.2f}x", cost <= TAPS_COST)


def _foreign(row: Numbers) -> list[float]:
    """Return what others took; while one core is measured they may have the rest."""
    foreign = row["foreign_cores"]
    return [foreign["value"] if isinstance(foreign, dict) else foreign - CORES + 1]


def _kept(found: Numbers) -> Numbers:
    return {name: value for name, value in found.items() if name != "whole_s"}


def _end_to_end(place: Place, precision: str) -> Numbers:
    options = {"four": [word for layer in FOUR for word in ("-l", layer)], "one": ["-l", *ONE]}
    rates = _rates(place, precision, options)
    row = {"what": "files to rows", "network": "resnet18", "precision": precision}
    row |= {"one_images_per_s": spread(rates["one"], 1), "four_images_per_s": spread(rates["four"], 1)}
    return row | {"cost": ratios(rates["one"], rates["four"]), "foreign_cores": spread(rates["foreign"], 2)}


def _rates(place: Place, precision: str, options: Mapping[str, Sequence[object]]) -> dict[str, list[float]]:
    """Run variants of ours in interleaved rounds: -> images/s of each."""
    folder = photos.small(place, place.share(IMAGES))
    rates: dict[str, list[float]] = {name: [] for name in (*options, "foreign")}
    common = ("-m", "resnet18", "--weights", "none", "--device", "cpu", "--precision", precision, "--compile", "none")
    for _ in range(place.rounds(3)):
        for name, more in options.items():
            found = ours(place, folder, *common, *more)
            rates[name].append(found["images_per_s"])
            rates["foreign"].append(found["foreign_cores"])
    return rates


def views(place: Place) -> Figures:
    """Compare four views of each image in one run with four runs of one view."""
    rows = []
    for precision in PRECISIONS:
        rates = _rates(place, precision, {"one": ["--views", 1], "four": ["--views", VIEWS]})
        row: Numbers = {"network": "resnet18", "precision": precision}
        row |= {"one_images_per_s": spread(rates["one"], 1), "four_images_per_s": spread(rates["four"], 1)}
        cost = spread([one / (VIEWS * four) for one, four in zip(rates["one"], rates["four"], strict=True)])
        rows.append(row | {"of_4_runs": cost, "foreign_cores": spread(rates["foreign"], 2)})
    return Figures(rows, "`of 4 runs`: the time of one run with 4 views over that of 4 runs with one, start-up apart.")


def forward(network: str, precision: str) -> Numbers:
    """Time the network with one tap and with four, taking turns, on this thread."""
    import torch

    from extract.allocator import keep_memory

    keep_memory()
    torch.set_num_threads(1)
    pixels = torch.randint(0, 256, (BATCH, 3, 224, 224), dtype=torch.uint8).contiguous(
        memory_format=torch.channels_last
    )
    lanes = {name: _lane(network, precision, layers) for name, layers in (("one", ONE), ("four", FOUR))}
    seconds: dict[str, list[float]] = {name: [] for name in lanes}
    for round_ in range(ROUNDS + 1):
        for name, lane in lanes.items():
            took = _seconds(lambda lane=lane: lane(pixels))
            if round_:  # the first one warms up
                seconds[name].append(took)
    rates = {f"{name}_images_per_s": spread([CALLS * BATCH / s for s in took], 1) for name, took in seconds.items()}
    return rates | {"cost": ratios(seconds["four"], seconds["one"])}


def _lane(network: str, precision: str, layers: Sequence[str]) -> Callable:
    from extract.forward import build_extractor
    from extract.runners import prepare
    from extract.spec import BackboneSpec, ExtractSpec

    backbone = BackboneSpec(network, "none")
    spec = ExtractSpec("", backbone=backbone, taps=tuple(layers), precision=precision, device="cpu")
    return prepare(build_extractor(spec), batch_size=BATCH).lane()


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(CALLS):
        work()
    return time.perf_counter() - began


if __name__ == "__main__":
    print(json.dumps(forward(*sys.argv[1:])))
