"""Which answers are wrong, and how sure it was of them."""

from collections.abc import Mapping, Sequence

from classify.labels import SEPARATOR
from classify.report.evidence import Row


def worst_errors(predictions: Sequence[Row]) -> list[Row]:
    """Return the wrong answers, the surest first."""
    wrong = [row for row in predictions if row["label"] != row["predicted"]]
    return sorted(wrong, key=lambda row: -(sureness(row) or 0))


def sureness(row: Row) -> float | None:
    """Return the probability given to what is wrong; of several labels, to the wrongest of them. None if not known."""
    if row.get("probability") not in (None, ""):
        return float(row["probability"])
    shares = row.get("probabilities")
    if not isinstance(shares, Mapping):
        return None
    there = str(row["label"]).split(SEPARATOR)
    return max((1 - share if name in there else share for name, share in shares.items()), default=None)
