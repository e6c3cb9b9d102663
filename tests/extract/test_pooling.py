import numpy as np
import pytest
import torch

from extract.errors import TapError
from extract.pooling import POOL_NAMES, make_pool

MAPS = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def cells(channel: np.ndarray, side: int, how) -> list[float]:
    """Split an 8 x 8 channel into side x side equal cells and reduce each, row by row."""
    return [float(how(part)) for band in np.split(channel, side) for part in np.split(band, side, axis=1)]


def plain(channel: np.ndarray, pool: str) -> list[float]:
    if pool == "gem":
        return [float((np.maximum(channel, 1e-6) ** 3).mean() ** (1 / 3))]
    if pool == "flatten":
        return [float(value) for value in channel.reshape(-1)]
    if pool.startswith("grid:"):
        return cells(channel, int(pool[5:]), np.mean)
    return [float({"avg": np.mean, "max": np.max}[pool](channel))]


@pytest.mark.parametrize("pool", ["avg", "max", "gem", "flatten", "grid:1", "grid:2", "grid:4"])
def test_a_pool_equals_a_loop_over_channels(pool):
    expected = [[value for channel in image for value in plain(channel, pool)] for image in MAPS.double().numpy()]
    np.testing.assert_allclose(make_pool(pool)(MAPS).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_avg_max_puts_all_means_before_all_maxima():
    rows = make_pool("avg+max")(MAPS)
    assert torch.equal(rows[:, :3], make_pool("avg")(MAPS))
    assert torch.equal(rows[:, 3:], make_pool("max")(MAPS))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_a_map_stays_as_it_is_channel_by_channel_in_memory(order):
    rows = make_pool("map")(MAPS.contiguous(memory_format=order))
    assert torch.equal(rows, MAPS)
    assert rows.is_contiguous()
    np.testing.assert_array_equal(rows.numpy().ravel(), MAPS.numpy().ravel())


def test_spp_is_the_maxima_over_1_2_and_4_cells_a_side():
    expected = [
        [value for side in (1, 2, 4) for channel in image for value in cells(channel, side, np.max)]
        for image in MAPS.numpy()
    ]
    np.testing.assert_allclose(make_pool("spp")(MAPS).numpy(), expected)


@pytest.mark.parametrize("pool", [name.replace("K", "2") for name in POOL_NAMES])
def test_rows_have_memory_of_their_own(pool):
    maps = MAPS.clone()
    rows = make_pool(pool)(maps)
    before = rows.clone()
    maps.zero_()
    assert torch.equal(rows, before)


@pytest.mark.parametrize("pool", ["avg", "max", "flatten"])
def test_an_output_that_is_a_row_already_stays_as_it_is(pool):
    rows = torch.randn(4, 5)
    pooled = make_pool(pool)(rows)
    assert torch.equal(pooled, rows)
    assert pooled.data_ptr() != rows.data_ptr()


@pytest.mark.parametrize("pool", ["gem", "avg+max", "spp", "grid:2", "map"])
def test_other_pools_refuse_a_row(pool):
    with pytest.raises(TapError, match=r"does not take an output of shape \(5,\)\. .*rows take avg, max, flatten"):
        make_pool(pool)(torch.randn(4, 5))


@pytest.mark.parametrize("name", ["", "mean", "grid", "grid:", "grid:0", "grid:65", "grid:x", "grid:²", "GRID:2"])
def test_an_unknown_pool_is_refused(name):
    with pytest.raises(TapError, match="no pool"):
        make_pool(name)


@pytest.mark.parametrize("pool", ["grid:9", "spp"])
def test_a_grid_finer_than_the_map_is_refused(pool):
    with pytest.raises(TapError, match="map of"):
        make_pool(pool)(MAPS[:, :, :3, :3])
