"""A run at work: network and head over records, batch by batch, by the same loader and forward pass as `extract`."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from classify.archive import read_run
from classify.bundle import PACKAGES
from classify.deployed import Answers, Bundle
from classify.listing import Images
from classify.reuse import Stored, open_stored
from classify.sklearn_joblib import load_joblib, with_head
from extract import golden
from extract.contents import content_digests
from extract.engines.local import Work, open_stream
from extract.errors import BundleError, DriftError, OptionError, first_line
from extract.forward import Extractor, rebuild_extractor
from extract.lanes import Done, Stream
from extract.loader import Loaded
from extract.progress import Progress
from extract.record import Record
from extract.spec import ExtractSpec, available_cores
from extract.store.index import NOTHING, versions

IMPOSSIBLE = (LookupError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError)
"""What torch and the cut raise at a recipe that was written by hand."""
CHUNK = 2048
"""Images that are looked up in a cache at a time."""
MANY = 1 << 20
"""Stands for the number of images of a list that is still being written."""


@dataclass(frozen=True)
class PredictSpec:
    """What to predict with which run. `abstain_below` is a probability: under it the answer is marked as abstained.

    None stands for the run's own threshold, where it was fitted with one. `probabilities` asks for those of all
    classes; a `cache` is where rows are read from that are there. `compile` is the engine that runs the network. `head`
    is a joblib file whose classifier answers instead of the run's own head; it is loaded only where `trust` says so.
    """

    run: str
    top: int = 5
    abstain_below: float | None = None
    device: str = "auto"
    batch_size: int | None = None
    workers: int = field(default_factory=available_cores)
    probabilities: bool = False
    cache: Path | None = None
    compile: str = "auto"
    head: Path | None = None
    trust: bool = False

    def __post_init__(self) -> None:
        if self.trust and self.head is None:
            raise OptionError("there is no joblib file to be trusted", remedy="Name it: --sklearn-joblib FILE")

    def limit(self, bundle: Bundle) -> float:
        """Return the probability under which to abstain."""
        own = bundle.abstain.threshold if bundle.abstain else 0.0
        return own if self.abstain_below is None else self.abstain_below


@dataclass(frozen=True)
class Batch:
    """Records with what was loaded of them, and their answers, row by row."""

    records: tuple[Record, ...]
    items: list[Loaded]
    answers: Answers


def open_run(spec: PredictSpec) -> tuple[Bundle, Extractor]:
    """Read a run and put its network on the device; raises BundleError where it is no good."""
    bundle = read_run(spec.run)
    where, remedy = spec.run, "Run fit again"
    try:
        extractor = rebuild_extractor(bundle.recipe, bundle.weights_path, bundle.layers, device=spec.device)
    except IMPOSSIBLE as error:
        said = first_line(error)
        raise BundleError(f"the recipe cannot be carried out ({said})", where=where, remedy=remedy) from error
    shapes = [extractor.shapes[layer] for layer in bundle.layers]
    if any(len(shape) != 1 for shape in shapes) or sum(shape[0] for shape in shapes) != bundle.width:
        given = " + ".join(" x ".join(map(str, shape)) for shape in shapes)
        said = f"the head takes {bundle.width} numbers, and {' + '.join(map(repr, bundle.layers))} gives {given}"
        raise BundleError(said, where=where, remedy=remedy)
    if spec.head is not None:
        bundle = with_head(bundle, load_joblib(spec.head, trust=spec.trust), str(spec.head))
    return bundle, replace(extractor, recipe=replace(bundle.recipe, views=1, view_seed=0))


def prove(bundle: Bundle, stream: Stream) -> None:
    """Have a stream make the features of the bundle's examples again; raises DriftError where they come out otherwise.

    What the head says of them is proven when the bundle is read. Bundles of before have no examples.
    """
    if bundle.examples is None:
        return
    try:
        golden.prove_stream(stream, bundle.examples.rows, bundle.recipe)
    except DriftError as error:
        now = versions(PACKAGES)
        changed = [f"{name} {was} -> {now.get(name)}" for name, was in bundle.versions.items() if now.get(name) != was]
        said = f"{error.what}. Changed since the fit: {', '.join(changed) or 'nothing that was noted'}"
        remedy = "Undo what changed, try --compile none, or extract and fit again. Nothing was answered"
        raise DriftError(said, where=error.where, remedy=remedy) from error


@contextmanager
def open_proven(
    spec: PredictSpec, bundle: Bundle, extractor: Extractor, n: int | None, progress: Progress
) -> Iterator[Stream]:
    """Open what images flow through, once it makes of the bundle's examples what it should.

    A network is compiled only where that can be proven and is known to pay.
    """
    sure = spec.compile != "auto" or (bundle.examples is not None and n is not None)
    compiler = spec.compile if sure else "none"
    wanted = ExtractSpec("", batch_size=spec.batch_size, workers=spec.workers, compile=compiler)
    with open_stream(extractor, wanted, Work((), MANY if n is None else n), note=progress.note) as stream:
        prove(bundle, stream)
        yield stream


def answered(
    spec: PredictSpec, bundle: Bundle, extractor: Extractor, images: Images, progress: Progress
) -> Iterator[Batch]:
    """Yield batch by batch, in the order of the records, of which never more are held than are under way."""
    if spec.cache is not None:
        yield from _from_cache(spec, bundle, extractor, images, progress)
    elif images.n != 0:
        with open_proven(spec, bundle, extractor, images.n, progress) as stream:
            for burst in images.bursts():
                for records, batch in _flow(stream, burst):
                    yield Batch(records, batch.items, answers_of(bundle, batch))


def _flow(stream: Stream, records: Iterable[Record]) -> Iterator[tuple[tuple[Record, ...], Done]]:
    """Send records through a stream: yield those of each batch with what became of them."""
    under_way: deque[Record] = deque()

    def noted() -> Iterator[Record]:
        for record in records:
            under_way.append(record)
            yield record

    with closing(stream.run(noted())) as batches:
        for batch in batches:
            yield tuple(under_way.popleft() for _ in batch.items), batch


def answers_of(bundle: Bundle, batch: Done) -> Answers:
    """Answer for one batch; what has no features has NaN for every number, and an empty set."""
    return _answers(bundle, batch.rows, batch.good)


def _answers(bundle: Bundle, rows: dict[str, np.ndarray], good: np.ndarray) -> Answers:
    """Answer for rows (n, D_i) by layer, those that are `good` (n,)."""
    found = bundle.answer({layer: rows[layer][good] for layer in bundle.layers})
    return Answers(*(_spread(part, good) for part in (found.probabilities, found.sets, found.novelty)))


def _spread(part: Any, good: np.ndarray) -> Any:
    """Give each good row its place: (m, ...) -> (n, ...), NaN or False elsewhere; None stays None."""
    if part is None:
        return None
    whole = np.full((len(good), *part.shape[1:]), False if part.dtype == bool else np.nan)
    whole[good] = part
    return whole


def _from_cache(
    spec: PredictSpec, bundle: Bundle, extractor: Extractor, images: Images, progress: Progress
) -> Iterator[Batch]:
    """Yield chunk by chunk what a cache has, with what it lacks computed."""
    assert spec.cache is not None  # noqa: S101 the caller has looked
    stored, n, n_read = open_stored(spec.cache, bundle.recipe.key), 0, 0
    with ExitStack() as stack:
        stream = None
        for records in chain.from_iterable(map(_chunks, images.bursts())):
            found = _look_up(records, stored, bundle, spec.workers)
            if not found.good.all():
                stream = stream or stack.enter_context(open_proven(spec, bundle, extractor, images.n, progress))
            n, n_read = n + len(records), n_read + int(found.good.sum())
            yield _completed(found, records, stream, bundle)
    progress.note(f"{n_read:,} of {n:,} images have their features in {spec.cache}; the others were computed")


def _chunks(records: Iterable[Record]) -> Iterator[tuple[Record, ...]]:
    left = iter(records)
    while chunk := tuple(islice(left, CHUNK)):
        yield chunk


@dataclass(frozen=True, eq=False)
class _Found:
    """What a cache has of some records: `rows` (n, D_i) by layer, where they are `good` (n,); and their digests."""

    rows: dict[str, np.ndarray]
    good: np.ndarray
    items: list[Loaded]


def _look_up(records: tuple[Record, ...], stored: Stored, bundle: Bundle, workers: int) -> _Found:
    """Look records up by the content of their files, which is read for that."""
    contents = [each if isinstance(each, bytes) else NOTHING for each in content_digests(records, workers=workers)]
    places = stored.find(contents)
    good = np.array([place is not None for place in places], bool)
    known = [place for place in places if place is not None]
    rows = {layer: _spread(stored.read(layer, known), good) for layer in bundle.layers} if known else {}
    return _Found(rows, good, [Loaded(digest, None, 0.0, 0.0) for digest in contents])


def _completed(found: _Found, records: tuple[Record, ...], stream: Stream | None, bundle: Bundle) -> Batch:
    """Compute what was not found, and answer for all."""
    unknown, items, rows, good = np.flatnonzero(~found.good), [*found.items], found.rows, found.good.copy()
    done = 0
    for batch in stream.run([records[i] for i in unknown]) if stream and len(unknown) else ():
        at = unknown[done : done + len(batch.items)]
        rows = rows or {layer: np.full((len(records), *batch.rows[layer].shape[1:]), np.nan) for layer in bundle.layers}
        for layer in bundle.layers:
            rows[layer][at] = batch.rows[layer]
        for i, item in zip(at.tolist(), batch.items, strict=True):
            items[i] = item
        good[at], done = batch.good, done + len(batch.items)
    return Batch(records, items, _answers(bundle, rows, good))
