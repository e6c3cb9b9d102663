"""What a page is made from, and how to reach into it: any part of a run's metrics may be missing or None."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

Metrics = Mapping[str, Any]
Row = Mapping[str, Any]

LEADERS = ("accuracy", "map", "macro_f1")
"""The measure that a page leads with, where the run names none: the first that was measured."""


@dataclass(frozen=True)
class Evidence:
    """A run as it lies in its folder: metrics, the test images' answers, findings by name, and pictures by image id."""

    metrics: Metrics
    predictions: Sequence[Row]
    findings: Mapping[str, Sequence[Row]]
    pictures: Mapping[str, str]

    def get(self, *names: str) -> Any:
        """Reach into the metrics; None as soon as a part is missing."""
        return dig(self.metrics, *names)


@dataclass(frozen=True)
class Section:
    """One part of the page: its anchor, its heading, and HTML."""

    anchor: str
    title: str
    body: str


def dig(found: Any, *names: str) -> Any:
    """Reach into nested dictionaries; None as soon as a part is missing."""
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def is_measure(found: Any) -> TypeGuard[Mapping[str, float]]:
    """Say whether something is {"value", "low", "high"}, each a number."""
    return all(isinstance(dig(found, end), (int, float)) for end in ("value", "low", "high"))


def leading(evidence: Evidence) -> str | None:
    """Name the measure that the page leads with; None where nothing was measured."""
    measured = evidence.get("test") or evidence.get("cv") or {}
    asked = (evidence.get("protocol", "metric"), evidence.get("imbalance", "leads"))
    names = [name for name in (*asked, *LEADERS, *measured) if name]
    return next((name for name in names if is_measure(measured.get(name))), None)
