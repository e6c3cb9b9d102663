"""Ways to choose a strategy without measuring anything, by the case of the four at most."""

from collections.abc import Callable

from benchmarks.cells.sets import Cell
from classify.advise.advice import FEW
from classify.tuning import LINEAR

SIMILAR = "similar"


def is_large(cell: Cell) -> bool:
    """Say whether data are large: so many images a class that training a whole network is known to have paid."""
    return cell.per_class >= FEW


def is_similar(cell: Cell) -> bool:
    """Say whether the images are like those of the pretraining, as the set's own case has it."""
    return cell.images.case.endswith(SIMILAR)


def by_table(cell: Cell) -> str:
    """Take what the table of the four cases says (CS231n, Transfer Learning): fine-tune where data are large.

    Small and different images ask for earlier layers, which the probe looks at by itself. For large and different ones
    the notes allow training from scratch, but say that beginning with pretrained weights is often better in practice.
    """
    return "full" if is_large(cell) else LINEAR


def by_table_anew(cell: Cell) -> str:
    """Take the same table, and train from scratch where images are many and different."""
    return "scratch" if is_large(cell) and not is_similar(cell) else by_table(cell)


RULES: dict[str, Callable[[Cell], str]] = {
    "table of cases": by_table,
    "always linear": lambda _: LINEAR,
    "always full": lambda _: "full",
    "always lp-ft": lambda _: "lp-ft",
    "table, from scratch": by_table_anew,
}
TO_BEAT = tuple(RULES)[:3]
"""The rules that letting `fit` choose has to lose less than."""
