"""A stream without processes and without a network: the tests' stand-in where only the flow matters."""

import hashlib
from collections import deque
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from extract.decoding import Decoded
from extract.forward import Extractor
from extract.images import DECODERS
from extract.recipe import Preprocessing, Recipe, Tap, view_of
from extract.record import Failure, Record, Status
from tests.tiny import picture

PRESET = Preprocessing(34, 32, "bilinear", (0.5,) * 3, (0.5,) * 3)


def numbered(n: int) -> list[Record]:
    """Records 0, 1, 2, ... that only an `Instant` decoder can read."""
    return [Record(str(i), "") for i in range(n)]


def digest_of(record: Record) -> bytes:
    return hashlib.sha256(record.id.encode()).digest()


class Instant:
    """Stands for a decoder: decodes a record 3 to picture 3 at once, and one that is no number to a failure."""

    def __init__(self, short_px: int | None = None, *, leave_jpeg: bool = False) -> None:
        self.waiting: deque[Record] = deque()
        self.calls: list[str] = []

    @property
    def full(self) -> bool:
        return len(self.waiting) == 3

    def submit(self, record: Record) -> None:
        self.waiting.append(record)

    def answer(self) -> Decoded:
        record = self.waiting.popleft()
        fine = record.id.isdigit()
        outcome = np.asarray(picture(int(record.id))) if fine else Failure(Status.MISSING, record.id)
        return Decoded(digest_of(record), outcome, 1.0, 2.0)

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def kill(self) -> None:
        self.calls.append("kill")

    def close(self) -> None:
        self.calls.append("close")


class Sums:
    """Stands for a runner: rows that are exact, whatever the batch. `sum` (3,) over all pixels, `corner` (3, 2, 2)."""

    name = "sums"

    def lane(self) -> Any:
        return self.run

    def run(self, pixels: Tensor) -> dict[str, Tensor]:
        sums = pixels.to(torch.int64).sum((2, 3)).float() / 1024
        return {"sum": sums, "corner:map": pixels[:, :, :2, :2].float()}


def extractor(*, views: int = 1, store: str = "float32") -> Extractor:
    """What a stream needs to know of the network behind `Sums`."""
    taps = Tap("sum"), Tap("corner", "map")
    nodes = "sum", "corner"
    decoder = DECODERS["exact"]
    recipe = Recipe("sums", "0" * 64, taps, nodes, PRESET, decoder, "fp32", store, views=views, view_seed=views - 1)
    shapes = {view_of(tap, view): shape for view in range(views) for tap, shape in SHAPES.items()}
    known = SimpleNamespace(recipe=recipe, device=torch.device("cpu"), shapes=shapes, writer={"by": "sums"})
    return cast(Extractor, known)


SHAPES = {"sum": (3,), "corner:map": (3, 2, 2)}
