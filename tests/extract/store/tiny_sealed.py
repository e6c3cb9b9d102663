"""A sealed file of a few small datasets."""

from pathlib import Path

import h5py
import numpy as np

from extract.store.sealed import seal
from extract.store.texts import text_array

ARRAYS = {
    "layers/a": np.arange(12, dtype=np.float32).reshape(4, 3),
    "layers/half": np.arange(4, dtype=np.float16).reshape(4, 1),
    "layers/map": np.arange(24, dtype=np.float16).reshape(4, 1, 2, 3),
    "n": np.arange(3),
    "nothing": np.zeros((0, 32), np.uint8),
    "words": text_array(["one", "", "th\xfcr"]),
}


def fill(file: h5py.File) -> None:
    for name, values in ARRAYS.items():
        file.create_dataset(name, data=values)
    layout = h5py.VirtualLayout((4, 3), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "x", (4, 3), np.float32)
    file.create_virtual_dataset("virtual", layout)


DIGEST, WHOLE = seal("shard", {"key": "k", "format_version": 2, "odd": "caf\udce9"}, fill)


def put(folder: Path, data: bytes = WHOLE) -> Path:
    path = folder / "a.h5"
    path.write_bytes(data)
    return path
