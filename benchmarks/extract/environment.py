"""What a measurement needs beside the files: weights as a state dict, and thingsvision in its own environment."""

import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.extract.harness import Place, Skipped, emptied
from extract.backbones import open_backbone
from extract.spec import BackboneSpec

THINGSVISION = "thingsvision==2.7.3"
"""Of its requirements (numpy<2, torchvision 0.15.2, tensorflow<2.16, transformers 4.40.1) some end with Python 3.11."""

INSTALL_S = 900


def state_file(name: str, work: Path, weights: str = "none") -> Path:
    """Write the very weights that `--weights` stands for as a state dict of torchvision's, and return its file."""
    path = work / f"{name}.pt"
    state = open_backbone(BackboneSpec(name, weights)).read()
    torch.save({key: value.float() if value.is_floating_point() else value for key, value in state.items()}, path)
    return path


def thingsvision(place: Place) -> Path:
    """Return a Python that has thingsvision, installed once; raises Skipped with pip's last words where it fails."""
    folder = place.work / "thingsvision"
    python, ready = folder / "bin" / "python", folder / "ready"
    if place.thingsvision or ready.is_file():
        return place.thingsvision or python
    emptied(folder)
    _called([sys.executable, "-m", "venv", str(folder)])
    _called([str(python), "-m", "pip", "install", "--no-input", "--quiet", THINGSVISION])
    ready.touch()
    return python


def _called(command: list[str]) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=True)
    except subprocess.TimeoutExpired as late:
        raise Skipped(f"not installed in {INSTALL_S} s") from late
    except subprocess.CalledProcessError as failed:
        errors = [line for line in failed.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise Skipped(errors[-1]) from failed
