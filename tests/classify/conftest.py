from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_features import FakeFeatures, blobs

from classify import inputs
from classify.fit import fit
from classify.probe import backend
from classify.probe.backend import Backend, torch_backend
from classify.spec import FitSpec

QUICK = {"jobs": 1, "duplicates": "off"}


@pytest.fixture
def make_features(tmp_path: Path) -> Callable[..., FakeFeatures]:
    def make(labels: np.ndarray, names: list[str], **known) -> FakeFeatures:
        weights = tmp_path / "weights.safetensors"
        weights.write_bytes(b"stands for weights")
        if "X" not in known:
            known["X"] = {"penultimate": blobs(labels, 8)}
        return FakeFeatures(labels=labels, label_names=names, weights_path=weights, **known)

    return make


@pytest.fixture
def run(monkeypatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Fit on features that were made, with few folds, and return what the run says; it lies in `tmp_path / "run"`."""

    def start(features: FakeFeatures, **options) -> dict[str, Any]:
        monkeypatch.setattr(inputs, "open_features", lambda name, cache: features)
        folds = {} if {"protocol", "few_shot"} & set(options) else {"cv": 3}
        return fit(FitSpec("tiny", **({"out": tmp_path / "run", "strategy": "linear"} | QUICK | folds | options)))

    return start


@pytest.fixture
def gpu(monkeypatch) -> list[str]:
    """Let "cuda" be torch on the CPU, which refuses as a GPU does what NumPy would take from it unasked.

    -> the devices that were opened so far.
    """
    import torch

    opened = []

    def refuse(*_, **__) -> None:
        raise TypeError("a tensor of a GPU is no array")

    @contextmanager
    def on_cpu(device: str) -> Iterator[Backend]:
        opened.append(device)
        with torch_backend("cpu") as found:
            yield found

    monkeypatch.setattr(backend, "gpu_count", lambda: 1)
    monkeypatch.setattr(backend, "torch_backend", on_cpu)
    monkeypatch.setattr(torch.Tensor, "__array__", refuse)
    return opened
