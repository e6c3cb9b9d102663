"""Pixels: batches of images on the device that is to see them, for whatever network; of training images, looks drawn.

A GPU has a stream of its own for it: while it works on one batch, the next one is copied, resized and cropped there.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from extract.batches import Batch, Loaded, in_order
from extract.channel import Channel, Crew
from extract.decoding.batched import decode_batch
from extract.errors import OptionError, RunnerError
from extract.images import DECODERS
from extract.loader import Loader, Sight
from extract.recipe import Recipe
from extract.record import Failure, Record
from extract.resample import render_on
from extract.runners.chunks import out_of_memory


@contextmanager
def enough_memory() -> Iterator[None]:
    """Say in our words that the memory does not suffice for what is beside the network, which sees to itself."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise RunnerError("the memory does not suffice for a batch", remedy="Take a smaller --batch-size") from error


class Bringer:
    """Brings batches of up to `batch_size` images to their device, and there decodes and resizes what is left to it.

    On a GPU in a `stream` of its own, for one thread at a time.
    """

    def __init__(self, device: torch.device, sight: Sight, batch_size: int) -> None:
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._device, self._sight = device, sight
        side = sight.preset.crop_size
        shape = batch_size * sight.views, 3, side, side
        with self.at_work():
            pixels = torch.zeros(shape, dtype=torch.uint8, device=device)
            self._pixels = pixels.contiguous(memory_format=torch.channels_last)
            self._raw = torch.empty(0, dtype=torch.uint8, device=device)

    def at_work(self) -> AbstractContextManager[Any]:
        """Return the context to `bring` in: what is asked of a GPU goes to its stream."""
        return torch.cuda.stream(self.stream) if self.stream else nullcontext()

    def bring(self, batch: Batch) -> tuple[Tensor, list[Loaded]]:
        """Return the pixels of a batch on the device (n V, 3, S, S) uint8, and what became of each record.

        They hold until the next batch is brought, or this one's buffer given back.
        """
        n = len(batch) * self._sight.views
        if not self.stream and not batch.raws:
            return batch.buffer.pixels[:n], batch.loaded
        pixels = self._pixels[:n]
        if len(batch.raws) < len(batch):
            pixels.copy_(batch.buffer.pixels[:n], non_blocking=True)
        return pixels, self._resize(batch, pixels)

    def _resize(self, batch: Batch, pixels: Tensor) -> list[Loaded]:
        """Decode and resize on the device what the loader left to it, and put it among the pixels."""
        items, failures = batch.loaded, {}
        images, chosen, places = [], [], []
        for raw, image in zip(batch.raws, self._images(batch), strict=True):
            record = batch.records[raw.place]
            found = image if isinstance(image, Failure) else self._sight.looks(record, image.shape, raw.digest)
            if isinstance(found, Failure):
                failures[raw.place] = found
                continue
            images.append(image)
            chosen.append(found)
            places.append(raw.place)
        if images:
            self._put(images, chosen, places, pixels)
        return [replace(item, failure=failures.get(i, item.failure)) for i, item in enumerate(items)]

    def _put(self, images: list[Tensor], chosen: list[Any], places: list[int], pixels: Tensor) -> None:
        """Resize images that lie on the device, and put the looks at each into its place."""
        views = self._sight.views
        out = torch.empty((len(images) * views, *pixels.shape[1:]), dtype=torch.uint8, device=pixels.device)
        render_on(images, chosen, self._sight.preset.interpolation, out)
        at = torch.tensor([place * views + view for place in places for view in range(views)], device=pixels.device)
        pixels.index_copy_(0, at, out)

    def _images(self, batch: Batch) -> list[Tensor | Failure]:
        """Return the images that the loader left to the device, on it: (H, W, 3) uint8 each."""
        if len(self._raw) < batch.raw_used:
            self._raw = torch.empty(len(batch.buffer.raw), dtype=torch.uint8, device=self._device)
        self._raw[: batch.raw_used].copy_(batch.buffer.raw[: batch.raw_used], non_blocking=True)
        jpegs = iter(decode_batch([raw.jpeg for raw in batch.raws if raw.jpeg is not None], self._device))
        return [self._raw[raw.at].view(raw.shape) if raw.jpeg is None else next(jpegs) for raw in batch.raws]


@dataclass(frozen=True, slots=True)
class Pixels:
    """A batch of images: `pixels` (n, 3, S, S) uint8 in memory of its own, and what became of each record.

    An image that failed has pixels without meaning.
    """

    pixels: Tensor
    items: list[Loaded]


class PixelStream:
    """Images flow through the loader to one device, batch by batch, a few batches ahead of whoever takes them.

    A `Drawn` record is looked at as it says, any other one as the recipe's centre view. One run at a time; the
    processes that decode live until `close`. Use it as a context manager.
    """

    def __init__(self, recipe: Recipe, *, batch_size: int, workers: int, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        on_gpu = self._device.type == "cuda"
        if recipe.decoder == DECODERS["gpu"] and not on_gpu:
            said = f"the images of these features were decoded by a GPU, and this is a {self._device.type}"
            raise OptionError(said, remedy="Take --device cuda, or extract with --decoder exact")
        self.batch_size = batch_size
        # Threads that decode and resize keep to one core each; whoever starts threads later is to have all of them.
        self._threads = torch.get_num_threads()
        sight = Sight.of(replace(recipe, views=1))
        self._loader = Loader(sight, workers=workers, batch_size=batch_size, on_gpu=on_gpu)
        with enough_memory():
            self._bringer = Bringer(self._device, sight, batch_size)
        self._run: Generator[Pixels, None, None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the run and all processes."""
        if self._run:
            self._run.close()
        self._loader.close()
        torch.set_num_threads(self._threads)

    def batches(self, records: Iterable[Record]) -> Generator[Pixels, None, None]:
        """Yield the records batch by batch, in order; `records` may have no end. A run before this one ends here.

        Raises DecoderError where no process can be started to decode, and RunnerError where the memory does not
        suffice.
        """
        if self._run:
            self._run.close()
        self._run = self._flow(records)
        return self._run

    def _flow(self, records: Iterable[Record]) -> Generator[Pixels, None, None]:
        with Crew() as crew:
            try:
                ready, done = self._loader.run(records, crew), crew.channel(1)
                crew.start("bring", partial(self._bring, ready, done))
                for made in in_order(done, crew):
                    if self._bringer.stream:  # its memory must not be given to the next batch while it is in use here
                        made.pixels.record_stream(torch.cuda.current_stream(self._device))
                    yield made
            except KeyboardInterrupt:
                self._loader.kill()
                raise

    def _bring(self, ready: Channel[Batch], done: Channel[tuple[Batch, Pixels]]) -> None:
        torch.set_num_threads(1)
        for batch in ready:
            with enough_memory(), self._bringer.at_work():
                pixels, items = self._bringer.bring(batch)
                made = Pixels(pixels.clone(), items)
                if self._bringer.stream:
                    self._bringer.stream.synchronize()
            batch.release()
            done.put((batch, made))
        done.finish()
