"""On a GPU: ours beside the naive script, and beside what decoders and the compiled network reach alone."""

from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.extract import photos
from benchmarks.extract.environment import state_file
from benchmarks.extract.harness import (
    CORES,
    Figures,
    Goal,
    Numbers,
    Place,
    Skipped,
    at_least,
    emptied,
    ours,
    program,
    ratios,
    spread,
    timed,
    undisturbed,
)
from benchmarks.extract.limit import DECODERS

NETWORKS = ("resnet18", "resnet50")
IMAGES, NAIVE_IMAGES = 24_000, 4_000
DECODE_SHARE, FORWARD_SHARE = 0.8, 0.6
COMMON = ("--weights", "none", "--device", "cuda", "--precision", "bf16")
VARIANTS = {
    "ours, exact decoder": ("--decoder", "exact"),
    "ours, gpu decoder": ("--decoder", "gpu"),
    "ours, exact decoder, eager": ("--decoder", "exact", "--compile", "none"),
}


def gpu(place: Place) -> Figures:
    """Race ours with the naive script on a GPU, and hold it against the ceilings; skipped where there is none."""
    if not torch.cuda.is_available():
        raise Skipped("no GPU here")
    rows, goals, facts = [], [], {}
    decode = _cpu_decode(place)
    for network in NETWORKS:
        alone = timed(program("ceilings", network, photos.small(place, 256)))
        found = list(_race(place, network))
        rows += found
        foreign = [alone["foreign_cores"], *(row["foreign_cores"]["value"] for row in found)]
        goals += undisturbed(_goals(network, found, decode, alone), foreign)
        facts[network] = {name: alone[name] for name in ("device", "forward", "device_decode", "resident")}
    return Figures(rows, NOTE, goals, {"decode_on_all_cores": round(decode), **facts})


NOTE = """`decode on all cores`: the fastest decoder on the CPU, a process on each core at once, nothing else at work.
`device decode`: the GPU's decoder alone. `forward`: torchvision's network compiled in bf16, by mode of torch.compile,
on a batch that lies on the GPU. `resident`: ours from decoded images on the GPU: resized there, through the network,
rows back. All in images/s. Ours with `--compile auto` where nothing else is said."""


def _cpu_decode(place: Place) -> float:
    peaks = timed(program("peaks", photos.small(place, 256), 48))
    return CORES * max(peaks[decoder] for decoder in DECODERS if decoder in peaks)


def many(place: Place, n: int) -> Path:
    """Return a folder of n photos that all differ: the small ones over and over, a number behind the end of each."""
    folder = place.work / f"many-{n}"
    if not folder.is_dir():
        partial = emptied(place.work / "many.partial")
        sources = sorted(photos.small(place, photos.SMALL).rglob("*.jpg"))
        for number in range(n):
            path = partial / f"{number // 1000:03}" / f"{number:06}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(sources[number % len(sources)].read_bytes() + b"%d" % number)
        partial.rename(folder)
    return folder


def _race(place: Place, network: str) -> Iterator[Numbers]:
    """Run all in interleaved rounds and sum up."""
    runs: dict[str, list[Numbers]] = {name: [] for name in ("naive", f"naive, {CORES} workers", *VARIANTS)}
    state = state_file(network, place.work)
    few, all_of_them = many(place, place.share(NAIVE_IMAGES)), many(place, place.share(IMAGES))
    options = ("--model", network, "--state", state, "--device", "cuda", "--out", emptied(place.work / "out"))
    for _ in range(place.rounds(2)):
        for workers, name in zip((0, CORES), runs, strict=False):
            runs[name].append(timed(program("rivals.naive", few, "--workers", workers, *options)))
        for name, more in VARIANTS.items():
            runs[name].append(ours(place, all_of_them, "-m", network, *COMMON, *more))
    naive = [run["images_per_s"] for run in runs["naive"]]
    for name, found in runs.items():
        rates = [run["images_per_s"] for run in found]
        row = {"network": network, "who": name, "images_per_s": spread(rates, 0), "ratio": ratios(rates, naive)}
        row |= {"whole_s": spread([run["whole_s"] for run in found], 1), "stages": found[-1].get("stages")}
        yield row | {"foreign_cores": spread([run["foreign_cores"] for run in found], 2)}


def _goals(network: str, rows: list[Numbers], decode: float, alone: Numbers) -> Iterator[Goal]:
    """Compare each decoder's rate with what it reaches alone, and the way on the GPU with the compiled network."""
    rates = {row["who"]: row["images_per_s"]["value"] for row in rows}
    forward = max(alone["forward"].values())
    for name, where, ceiling in (("exact", "all cores", decode), ("gpu", "the GPU", alone["device_decode"])):
        share = rates[f"ours, {name} decoder"] / ceiling
        goal = f"GPU, {network}, {name} decoder: >= {DECODE_SHARE:.0%} of the decode ceiling of {where}"
        said = f"{share:.1%} of {ceiling:,.0f} images/s (the network alone: {forward / ceiling:.0%})"
        yield Goal(goal, said, share >= DECODE_SHARE)
    goal = f"GPU, {network}: GPU-resident input path >= {FORWARD_SHARE:.0%} of the compiled forward ceiling"
    yield at_least(goal, alone["resident"] / forward, FORWARD_SHARE, share=True)
