"""What is known of an image, and what became of it. Imports nothing heavy."""

from dataclasses import dataclass

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""The names a user gives a split, and ours."""


class Status:
    """What became of a row, as stored (uint8). Only OK rows have features; the others hold NaN and a reason.

    Rows that were KILLED are computed again by the next run: the machine was the cause, and not the image.
    """

    OK = 0
    MISSING = 1
    EMPTY = 2
    NOT_AN_IMAGE = 3
    DAMAGED = 4
    TOO_LARGE = 5
    NOT_FINITE = 6
    TOO_SLOW = 7
    CRASHED = 8
    KILLED = 9

    NAMES = (
        "ok",
        "missing",
        "empty",
        "not an image",
        "damaged",
        "too large",
        "not finite",
        "too slow",
        "crashed the decoder",
        "killed",
    )


@dataclass(frozen=True, slots=True)
class Record:
    """One image: where its bytes are, and what is known of it.

    `id` is a POSIX path relative to the source. The bytes are the file `path`, or the `span` (offset, size) of it where
    the image is a member of a tar. `label`, `split` and `group` are None where the source says nothing.
    """

    id: str
    path: str
    label: str | None = None
    split: str | None = None
    group: str | None = None
    span: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a row has no features: a `Status` other than OK, and the reason in words."""

    status: int
    reason: str
