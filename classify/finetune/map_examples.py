"""Examples that are cached maps of a trunk, read ahead of the training."""

from collections.abc import Generator, Iterable
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from classify.finetune.examples import ALONE, Batch, draws
from classify.finetune.plan import Augment
from classify.finetune.ranks import Ranks
from extract.channel import Channel, Crew
from extract.recipe import view_of

if TYPE_CHECKING:
    from extract.store.reader import FeatureSet

AHEAD = 2
"""Batches of maps that are read ahead: one is on its way while one is waiting."""

BY_VIEWS = 1
"""Tells the draws of views from those of the order."""

Wanted = Iterable[tuple[np.ndarray, np.ndarray]]
"""Batch by batch, which examples (n,) and in which view each (n,)."""


class MapExamples:
    """Cached maps of a trunk, in one of their views each; read ahead on a thread.

    `rows` (n,) are those of the maps, `layer` is their tap; y (n,) are codes. A GPU has a stream of its own for them.
    """

    cached = True

    def __init__(
        self, maps: "FeatureSet", layer: str, rows: np.ndarray, y: np.ndarray, *, device: torch.device | str = "cpu"
    ) -> None:
        maps.check_layer(layer)
        self._maps, self._rows, self._y = maps, rows, torch.from_numpy(np.asarray(y, np.int64))
        self._layers = [view_of(layer, view) for view in range(maps.views)]
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None

    def drawn(
        self, at: np.ndarray, *, batch_size: int, seed: int, start: int, augment: Augment, ranks: Ranks = ALONE
    ) -> Generator[Batch, None, None]:
        """Yield batches without end, each map in a view that `augment` allows; see `Examples`.

        An example shows all of its views before it shows one again, in an order of its own.
        """
        views = self.views(augment)

        @lru_cache(maxsize=2)
        def turns(cycle: int) -> np.ndarray:
            rng = np.random.default_rng((seed, cycle, BY_VIEWS))
            return rng.permuted(np.tile(views, (len(at), 1)), axis=1)

        def wanted() -> Wanted:
            for places, epochs in draws(len(at), batch_size=batch_size, seed=seed, start=start, ranks=ranks):
                cycles, turn = np.divmod(epochs, len(views))
                chosen = [turns(cycle)[place, i] for cycle, place, i in zip(cycles.tolist(), places, turn, strict=True)]
                yield at[places], np.array(chosen)

        return self._ahead(wanted())

    def plain(self, at: np.ndarray, *, batch_size: int) -> Generator[Batch, None, None]:
        """Yield the maps of the centre views, once and in order; see `Examples`."""
        parts = (at[start : start + batch_size] for start in range(0, len(at), batch_size))
        return self._ahead((part, np.zeros(len(part), np.int64)) for part in parts)

    def views(self, augment: Augment) -> list[int]:
        """Number the views that may be shown: the centre, its mirror image, random crops, of what there is."""
        mirrored = self._maps.recipe.view_flips
        allowed = {0: True, 1: augment.flip} if mirrored else {0: True}
        others = augment.crop and (augment.flip or not mirrored)
        return [view for view in range(self._maps.views) if allowed.get(view, others)]

    def _ahead(self, wanted: Wanted) -> Generator[Batch, None, None]:
        """Read batches on a thread, some before they are asked for."""
        threads = torch.get_num_threads()
        try:
            with Crew() as crew:
                ready: Channel[Batch] = crew.channel(AHEAD)
                crew.start("read maps", partial(self._work, wanted, ready))
                for batch in ready:
                    if self._stream:  # its memory must not be given to the next batch while it is in use here
                        batch.x.record_stream(torch.cuda.current_stream(self._device))
                    yield batch
                crew.check()
        finally:
            torch.set_num_threads(threads)

    def _work(self, wanted: Wanted, ready: Channel[Batch]) -> None:
        torch.set_num_threads(1)  # the others belong to the training
        for at, views in wanted:
            ready.put(self._read(at, views))
        ready.finish()

    def _read(self, at: np.ndarray, views: np.ndarray) -> Batch:
        """Read one map of each example, as they are stored, and only then make them float32: six times as fast."""
        shape, store = self._maps.shapes[self._layers[0]], self._maps.recipe.store
        stored = np.empty((len(at), *shape), store)
        for i, (row, view) in enumerate(zip(self._rows[at].tolist(), views.tolist(), strict=True)):
            stored[i] = self._maps.stored_row(self._layers[view], row)
        return Batch(self._sent(torch.from_numpy(stored)), self._y[at], at)

    def _sent(self, stored: Tensor) -> Tensor:
        """Bring maps to their device, and there to float32, channels last as convolutions take them."""
        last = stored.contiguous(memory_format=torch.channels_last)
        if not self._stream:
            return last.float()
        with torch.cuda.stream(self._stream):
            x = last.pin_memory().to(self._device, non_blocking=True).float()
            self._stream.synchronize()
        return x
