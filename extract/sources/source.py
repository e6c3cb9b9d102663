"""What every kind of DATA is read into, and how its names are shown to people."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from extract.record import Record
from extract.spec import NAME


@dataclass(frozen=True, slots=True)
class Source:
    """One DATA: a default `name`, its `origin`, its `records` sorted by id, and `notes` for people.

    The origin says where the images came from, as an absolute path. Of one origin there is one data set at a time.
    """

    name: str
    origin: str
    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()


def default_name(text: str) -> str:
    """Make the name of a feature set of any text: only [A-Za-z0-9._-], neither empty nor hidden."""
    found = NAME.match(re.sub(r"-*[^A-Za-z0-9._-]+", "-", text).strip("-._"))
    return found[0].rstrip("-._") if found else "data"


def shown(name: str) -> str:
    """Return a file's name as text that any terminal and file takes; control characters and bad UTF-8 are escaped."""
    return name if name.isprintable() else repr(name)[1:-1]


def some(names: Sequence[str]) -> str:
    """List the first three names in order, and an ellipsis for the others."""
    return ", ".join([shown(name) for name in sorted(names)[:3]] + ["..."] * (len(names) > 3))


def skipped_notes(names: Sequence[str]) -> list[str]:
    """Say which files were passed over because their names are not those of images."""
    files = "1 file that is" if len(names) == 1 else f"{len(names)} files that are"
    return [f"skipped {files} not named as images: {some(names)}"] if names else []
