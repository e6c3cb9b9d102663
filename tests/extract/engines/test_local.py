from itertools import product
from pathlib import Path

import h5py
import numpy as np

from extract.engines import ENGINES
from extract.forward import build_extractor
from extract.spec import Record
from tests.tiny import put, tiny_spec


def test_neither_batch_size_nor_workers_change_a_row(tmp_path):
    records = [Record(f"{i}.png", str(put(tmp_path / f"{i}.png", i))) for i in range(10)]
    first = None
    for batch_size, workers in product((1, 3, 8), (1, 4)):
        spec = tiny_spec("", Path("cache"), batch_size=batch_size, workers=workers)
        folder = tmp_path / f"{batch_size}-{workers}" / "shards"
        receipts = list(
            ENGINES["local"]([records[:6], records[6:]], build_extractor(spec), folder, spec, lambda _: None)
        )
        rows = np.concatenate([h5py.File(folder / receipt.name)["layers/penultimate"][:] for receipt in receipts])
        first = rows if first is None else first
        assert np.linalg.norm(rows - first, axis=1).max() <= 1e-5 * np.linalg.norm(first, axis=1).min()
