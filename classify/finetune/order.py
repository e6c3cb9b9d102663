"""A training as it is asked for of other processes, and their answer: plain values in files, of which none can run.

They lie where its checkpoint does, in the folder of the features, which all of the processes see.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from classify.finetune import checkpoint
from classify.finetune.job import Device, Job, Outcome
from classify.finetune.log import Log
from classify.finetune.plan import Augment, Plan, Setting
from classify.finetune.search import Searched
from classify.finetune.shown import Shown
from extract import errors
from extract.backbones.weights import State
from extract.errors import OffshelfError
from extract.progress import Silent
from extract.store.files import TEMPORARY
from extract.store.folders import CHECKPOINT

ORDER, ANSWER = f"order{CHECKPOINT}", f"answer{CHECKPOINT}"
PROGRESS = f"{TEMPORARY}progress"
WORDS = ("start", "advance", "note", "show", "look")
"""What a log can be told."""

Answer = tuple[Searched, set[Path]]
"""What was found, and the folders of the checkpoints on the way to it."""


@dataclass(frozen=True, eq=False)
class Order:
    """A job, or the search for its setting; what it is done on, and the weights that it starts from.

    The network is that of the features, from its beginning or from the layer `until` up to `tap`. `device` says how to
    compute, and each process is told on which one; each has so many `workers` that decode.
    """

    job: Job
    searching: bool
    shown: Shown
    tap: str
    until: str | None
    n_classes: int
    device: Device
    workers: int
    start: State


@dataclass(frozen=True, slots=True)
class Desk:
    """The folder where an order lies, and the answer to it; `digest` names the training."""

    folder: Path
    digest: str

    def put(self, order: Order) -> None:
        """Lay an order down; an answer of before, and what was told on the way to it, go."""
        checkpoint.forget(self.folder, (ANSWER, PROGRESS))
        checkpoint.write(self.folder, self.digest, plain(order), ORDER)

    def order(self) -> Order:
        """Read the order; raises TrainingError where there is none."""
        said = checkpoint.read(self.folder, self.digest, ORDER)
        if said is None:
            remedy = "Have all machines see the cache under the same path"
            raise errors.TrainingError("no order lies there", where=str(self.folder), remedy=remedy)
        return _order(said)

    @property
    def answered(self) -> bool:
        """Whether the answer is there."""
        return (self.folder / ANSWER).is_file()

    def answer(self, found: Searched, folders: set[Path]) -> None:
        """Answer with what was found."""
        said = {"found": plain(found), "folders": [str(folder) for folder in sorted(folders)]}
        checkpoint.write(self.folder, self.digest, said, ANSWER)

    def fail(self, error: OffshelfError) -> None:
        """Answer with an error, as the nearest type that all know."""
        known = next(kind.__name__ for kind in type(error).__mro__ if vars(errors).get(kind.__name__) is kind)
        checkpoint.write(self.folder, self.digest, {"error": {**error.as_dict(), "type": known}}, ANSWER)

    def read(self) -> Answer | None:
        """Read the answer, None where there is none; raises the error that it may be."""
        said = checkpoint.read(self.folder, self.digest, ANSWER)
        if said is None:
            return None
        if error := said.get("error"):
            raise getattr(errors, error["type"])(error["what"], where=error["where"], remedy=error["remedy"])
        return _searched(said["found"]), set(map(Path, said["folders"]))

    @contextmanager
    def telling(self) -> Iterator[Log]:
        """Open a log whose every word is written down here, for those who wait for the answer."""
        with (self.folder / PROGRESS).open("a", encoding="utf-8") as file:
            file.write("\n")  # half a line of a process that was killed would swallow the first word
            yield _Written(file)


class _Written(Log):
    def __init__(self, file: IO[str]) -> None:
        super().__init__(Silent())
        self._file = file
        for word in WORDS:
            setattr(self, word, lambda *said, word=word: self._write(word, *said))

    def _write(self, *said: Any) -> None:
        self._file.write(json.dumps(said) + "\n")
        self._file.flush()


def plain(value: Any) -> Any:
    """Take a value apart into what `checkpoint` keeps: objects become tables, arrays tensors, paths texts."""
    if is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    return str(value) if isinstance(value, Path) else value


def _order(said: dict[str, Any]) -> Order:
    made = {"job": _job(said["job"]), "shown": _shown(said["shown"]), "device": Device(**said["device"])}
    return Order(**{**said, **made})


def _job(said: dict[str, Any]) -> Job:
    plan = said["plan"]
    settings = tuple(Setting(**each) for each in plan["settings"])
    made = {"plan": Plan(**{**plan, "settings": settings, "augment": Augment(**plan["augment"])})}
    arrays = {name: said[name].numpy() for name in ("train", "val", "y")}
    return Job(**{**said, **made, **arrays, "setting": Setting(**said["setting"])})


def _shown(said: dict[str, Any]) -> Shown:
    paths = {name: said[name] and Path(said[name]) for name in ("features", "root", "maps")}
    return Shown(**{**said, **paths, "rows": said["rows"].numpy(), "y": said["y"].numpy()})


def _searched(said: dict[str, Any]) -> Searched:
    return Searched(Setting(**said["best"]), Outcome(**said["outcome"]), said["trials"], said["notes"])
