"""Pools: what turns the output of a layer into a row, one function per name.

A pool takes a map (N, C, H, W) and returns rows (N, D) in memory of their own: never a view, so that an in-place
operation later in the network cannot change a row. The pool `map` alone returns (N, C, H, W).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from extract.errors import TapError, unknown
from extract.recipe import MAP_POOL

Pool = Callable[[Tensor], Tensor]

GEM_POWER = 3.0
GEM_FLOOR = 1e-6
SPP_LEVELS = (1, 2, 4)
MAX_GRID = 64
VECTOR_POOLS = ("avg", "max", "flatten")
"""The pools that leave a layer's output alone where it is a row (N, D) already."""


def avg(maps: Tensor) -> Tensor:
    """Mean over the positions: (N, C, H, W) -> (N, C)."""
    return maps.mean((2, 3))


def maximum(maps: Tensor) -> Tensor:
    """Largest value over the positions: (N, C, H, W) -> (N, C)."""
    return maps.amax((2, 3))


def gem(maps: Tensor) -> Tensor:
    """Generalised mean of power 3 (Radenovic et al. 2019): (N, C, H, W) -> (N, C). Values under 1e-6 count as 1e-6."""
    return maps.clamp(min=GEM_FLOOR).pow(GEM_POWER).mean((2, 3)).pow(1 / GEM_POWER)


def avg_max(maps: Tensor) -> Tensor:
    """Mean and largest value side by side: (N, C, H, W) -> (N, 2 C)."""
    return torch.cat([avg(maps), maximum(maps)], 1)


def grid(maps: Tensor, *, side: int) -> Tensor:
    """Means over a grid of `side` x `side` cells, channel by channel: (N, C, H, W) -> (N, C side^2)."""
    if min(maps.shape[2:]) < side:
        raise TapError(f"a map of {maps.shape[2]} x {maps.shape[3]} has no grid:{side}", remedy="Take a smaller grid")
    return F.adaptive_avg_pool2d(maps, side).flatten(1)


def spp(maps: Tensor) -> Tensor:
    """Spatial pyramid of maxima over 1, 2 and 4 cells a side (He et al. 2015): (N, C, H, W) -> (N, 21 C)."""
    if min(maps.shape[2:]) < max(SPP_LEVELS):
        raise TapError(f"a map of {maps.shape[2]} x {maps.shape[3]} is too small for spp", remedy="Take avg or max")
    return torch.cat([F.adaptive_max_pool2d(maps, side).flatten(1) for side in SPP_LEVELS], 1)


def flatten(maps: Tensor) -> Tensor:
    """Every value of the map: (N, C, H, W) -> (N, C H W)."""
    return maps.flatten(1).clone(memory_format=torch.contiguous_format)


def keep_map(maps: Tensor) -> Tensor:
    """The map as it is, channel by channel in memory: (N, C, H, W) -> (N, C, H, W)."""
    return maps.clone(memory_format=torch.contiguous_format)


POOLS: dict[str, Pool] = {
    "avg": avg,
    "max": maximum,
    "gem": gem,
    "avg+max": avg_max,
    "spp": spp,
    "flatten": flatten,
    MAP_POOL: keep_map,
}
POOL_NAMES = (*POOLS, "grid:K")


def make_pool(name: str) -> Pool:
    """Return the pool of that name as a function of a layer's output; raises TapError for a name that is none."""
    pool = _grid(name) if name.startswith("grid:") else POOLS.get(name)
    if pool is None:
        unknown("pool", name, POOL_NAMES, TapError)

    def pooled(output: Tensor) -> Tensor:
        if output.dim() == 4:
            return pool(output)
        if output.dim() == 2 and name in VECTOR_POOLS:
            return output.clone()
        said = f"pool {name!r} does not take an output of shape {tuple(output.shape[1:])}"
        raise TapError(said, remedy=f"Take it for maps (C, H, W); rows take {', '.join(VECTOR_POOLS)}")

    return pooled


def _grid(name: str) -> Pool:
    side = name.removeprefix("grid:")
    if not (side.isascii() and side.isdigit() and 1 <= int(side) <= MAX_GRID):
        raise TapError(f"no pool {name!r}", remedy=f"Take a grid of 1 to {MAX_GRID} cells a side, as in grid:4")
    return lambda maps: grid(maps, side=int(side))
