"""A whole fit whose arithmetic is torch's says what one by NumPy says."""

import shutil
from typing import Any

import numpy as np
import pytest
from tiny_features import blobs

from extract.store.folders import FITS


def features_of(make_features, n: int = 120):
    labels, rng = np.arange(n) % 3, np.random.default_rng(0)
    deep = blobs(labels, 8) + rng.normal(0, 1.5, (n, 8)).astype(np.float32)
    deep[7] = deep[4]
    return make_features(labels, ["wasp", "ant", "bee"], X={"layer1": rng.random((n, 60)), "penultimate": deep})


def numbers_in(found: Any, path: str = "") -> dict[str, Any]:
    """List the leaves of what a run says by their paths, without clocks and folders."""
    if isinstance(found, dict):
        pairs = found.items()
    elif isinstance(found, list):
        pairs = enumerate(found)
    else:
        return {path: found}
    known = [numbers_in(value, f"{path}/{key}") for key, value in pairs if key not in ("seconds", "run", "versions")]
    return {name: value for each in known for name, value in each.items()}


def test_a_fit_on_a_gpu_says_what_one_on_the_cores_says(make_features, run, gpu, tmp_path):
    found, features = {}, features_of(make_features)
    for device in ("cpu", "cuda"):
        said = run(features, head="ridge", device=device, duplicates="always", out=tmp_path / device)
        shutil.rmtree(features.folder / FITS)  # nothing is to be taken over
        found[device] = numbers_in(said)
        assert bool(gpu) == (device == "cuda")
    assert found["cuda"].keys() == found["cpu"].keys()
    for path, value in found["cpu"].items():
        same = pytest.approx(value, rel=1e-4, abs=1e-4) if isinstance(value, float) else value
        assert found["cuda"][path] == same, path
