"""What is said of files of the cache that cannot be read, or are not as they were written."""

from pathlib import Path

from extract.errors import StoreError, UnreadableError

REPAIR = "Run cache verify --repair, then extract again: it computes what is lost"
AGAIN = "Run extract again: it is made anew"


def unreadable(path: Path, kind: str, error: OSError) -> UnreadableError:
    """Return our error for one of the system's."""
    return UnreadableError(f"the {kind} cannot be read ({error.strerror})", where=str(path), remedy="Check the disk")


def damaged(path: Path, kind: str, what: str) -> StoreError:
    """Return the error for a file that is not as it was written.

    An extraction looks at every byte of an index and makes a damaged one anew; of shards it does not.
    """
    return StoreError(f"the {kind} is damaged: {what}", where=str(path), remedy=REPAIR if kind == "shard" else AGAIN)


def other_version(path: Path, kind: str) -> UnreadableError:
    """Return the error for a file that is whole and not of our making: what a newer version wrote is no damage."""
    remedy = "Take the version of offshelf that wrote it, or another --cache"
    return UnreadableError(f"the {kind} is of another version", where=str(path), remedy=remedy)


def not_recorded(datasets: list[str]) -> str:
    """Say that datasets, or what is around them where it is none of them, do not have their SHA-256."""
    names = ", ".join(f"dataset {name!r}" for name in datasets) or "the HDF5 structure around the datasets"
    return f"the SHA-256 of {names} is not the recorded one"
