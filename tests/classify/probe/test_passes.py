from dataclasses import replace

import numpy as np
import pytest

from classify.probe.backend import numpy_backend
from classify.probe.passes import cut
from classify.probe.rows import ArrayRows

X = np.zeros((1000, 4), np.float32)
COLUMNS = 30


@pytest.mark.parametrize(
    ("width", "most", "sizes"),
    [
        (1, 1000, [700, 300]),
        (2, 1000, [350, 350, 256, 44]),
        (2, 300, [256, 256, 188, 256, 44]),
        (1, 300, [256, 256, 188, 300]),
    ],
)
def test_work_is_cut_alike_for_all_cores_and_no_piece_is_too_large_or_too_small(width, most, sizes):
    blocks = ArrayRows(X, block_bytes=X[:700].nbytes).blocks
    with numpy_backend() as cores:
        found = list(cut(replace(cores, width=width, chunk=most * COLUMNS), blocks, COLUMNS))
    assert [len(chunk) for _, chunk in found] == sizes
    assert np.concatenate([np.arange(1000)[at] for at, _ in found]).tolist() == list(range(1000))
