"""The search for C on a grid that is refined where it pays, as CLIP's authors did it for their linear probes.

Seven points two decades apart, then spans of 8, 4, 2 and 1 steps to either side of the best, eight steps to a decade
(Radford et al. 2021, appendix A.3). The grid is indexed by integers, so that no point is missed, or fitted twice, for
the sake of a rounded logarithm. What CLIP's search does not do: where the best is the edge of the grid, the grid grows;
and once scores have clearly fallen from their peak, weaker penalties are not tried, which cost the most.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

PER_DECADE = 8
LOWEST = -6
"""Of the grid, as a power of ten."""
LAST = 12 * PER_DECADE
STRIDE = 2 * PER_DECADE
SPANS = (8, 4, 2, 1)
FIRST = 4
"""Points that are asked for together at the start: up to C = 1. The others follow one by one, while there is a use."""
FURTHEST = 2 * STRIDE
"""How many steps the grid may grow at either end: to 1e-10 and to 1e10."""

Scores = dict[int, float]
Fallen = Callable[[int, int], bool]
"""Says of an index whether it is clearly worse than another one."""


@dataclass(frozen=True)
class GridResult:
    """What the search found: the best C, its index and score, and every index that was tried, in order, with its score.

    `notes` say where the grid grew; `at_limit` that the best is an edge beyond which it may not.
    """

    C: float
    index: int
    score: float
    tried: Scores
    notes: tuple[str, ...] = ()
    at_limit: bool = False


def C_of(index: int) -> float:  # noqa: N802 sklearn's name for it
    """Return the C of a grid index: 0 -> 1e-6, 8 -> 1e-5; negative ones are allowed."""
    return 10.0 ** (index / PER_DECADE + LOWEST)


def search_C(  # noqa: N802
    evaluate: Callable[[list[int]], Sequence[float]], fallen: Fallen = lambda index, best: False
) -> GridResult:
    """Find the index with the highest score; `evaluate` scores a batch of indices, each asked for once.

    Of equal scores the smaller C wins, which regularises more. Exact for scores with one peak and no plateau.
    """
    tried: Scores = {}
    notes: list[str] = []
    starts = range(0, LAST + 1, STRIDE)
    _try(evaluate, starts[:FIRST], tried)
    for index in starts[FIRST:]:
        if fallen(max(tried), best_of(tried)):
            break
        _try(evaluate, [index], tried)
    while (beyond := _beyond(tried)) is not None:
        notes.append(f"the best C was the edge {C_of(best_of(tried)):.3g} of the grid: tried {C_of(beyond):.3g} too")
        _try(evaluate, [beyond], tried)
    low, high = min(tried), max(tried)
    at_limit = _leads(tried) and best_of(tried) in (low, high)
    for span in SPANS:
        near = (best_of(tried) - span, best_of(tried) + span)
        _try(evaluate, [index for index in near if low <= index <= high], tried)
    best = best_of(tried)
    return GridResult(C_of(best), best, tried[best], tried, tuple(notes), at_limit and best in (low, high))


def best_of(tried: Scores) -> int:
    """Return the index with the highest score, of equals the smallest."""
    return max(tried, key=lambda index: (tried[index], -index))


def _try(evaluate: Callable[[list[int]], Sequence[float]], wanted: Iterable[int], tried: Scores) -> None:
    fresh = [index for index in wanted if index not in tried]
    if fresh:
        tried.update(zip(fresh, map(float, evaluate(fresh)), strict=True))


def _beyond(tried: Scores) -> int | None:
    """Return the next index past the edge that the best is, or None: within the grid, at a plateau, or at the limit."""
    best = best_of(tried)
    if not _leads(tried) or best not in (min(tried), max(tried)):
        return None
    index = best - STRIDE if best == min(tried) else best + STRIDE
    return index if -FURTHEST <= index <= LAST + FURTHEST else None


def _leads(tried: Scores) -> bool:
    """Say whether no other index does as well: along a plateau there is nothing to follow beyond the grid."""
    return sum(score == tried[best_of(tried)] for score in tried.values()) == 1
