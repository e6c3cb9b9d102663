"""The errors a user can meet: each says what is wrong, where, and what to do about it."""

import difflib
from collections.abc import Iterable, Sequence
from typing import NoReturn


class OffshelfError(Exception):
    """An error of ours: `what` is wrong, `where`, and the `remedy`; all three are for people to read."""

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.remedy = what, where, remedy

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}. {self.remedy}" if self.remedy else text

    def as_dict(self) -> dict[str, str]:
        """Return the error as `--json` prints it."""
        return {"type": type(self).__name__, "what": self.what, "where": self.where, "remedy": self.remedy}


class SourceError(OffshelfError):
    """The images cannot be listed: no such folder, an ambiguous layout, a broken manifest."""


class ImageError(OffshelfError, ValueError):
    """An image given by a program is none, or has no features where all are asked for."""


class DecoderError(OffshelfError):
    """No process can be started that decodes images; it tells of the machine and not of an image."""


class BackboneError(OffshelfError):
    """The network or its weights cannot be had, or do not fit each other."""


class TapError(OffshelfError):
    """A layer that the network does not have, or a pool that its output cannot take."""


class StoreError(OffshelfError):
    """The cache cannot be read or written, or is not what its index says."""


class DriftError(OffshelfError):
    """This machine makes something else of the golden images than it should: it may not write a row."""


class UnreadableError(StoreError):
    """The system could not read a file of the cache: that says nothing of what is in it."""


class FitError(OffshelfError):
    """The features cannot be fitted: no labels, one class, too few images."""


class TrainingError(OffshelfError):
    """A training cannot go on: its loss is no number, the memory does not suffice, its folder holds another one."""


class BundleError(OffshelfError):
    """A bundle is incomplete, was changed, or is of an unknown format."""


class ExportError(OffshelfError):
    """A run cannot be made a program for other runtimes, or the program answers otherwise than the run."""


class OptionError(OffshelfError):
    """A value that an option does not take."""


class RunnerError(OffshelfError):
    """The network cannot be run: too little memory, or a compiler that fails."""


class EngineError(OffshelfError):
    """A process that computes features on one of several devices or machines failed, or cannot be started."""


class ShardsFailed(EngineError):  # noqa: N818 it says which of many, and all others are done
    """Shards that failed each time they were tried; all others are done.

    `failed` has of each its number among those that the engine was given, and why.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "", failed: Sequence[tuple[int, str]] = ()) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.failed = tuple(failed)


class Interrupted(OffshelfError):  # noqa: N818 the user's wish, not a fault
    """The user, or the system, has stopped the work."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, up to 200 letters of it; its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def unknown(kind: str, name: str, known: Iterable[str], error: type[OffshelfError], *, remedy: str = "") -> NoReturn:
    """Raise `error`: `name` is no `kind`; say which is nearest, or list what there is where the list is short."""
    names = list(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" (nearest: {nearest[0]!r})" if nearest else ""
    listed = f"Known: {', '.join(names) or 'none'}" if len(names) <= 12 else ""
    raise error(f"no {kind} {name!r}{hint}", remedy=". ".join(filter(None, (remedy, listed))))
