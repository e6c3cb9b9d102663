"""A trained network as an ordinary bundle: its own recipe, weights and head, and its own answers for the test part."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import save_file

from classify.bundle import Bundle
from classify.finetune.bench import Bench
from classify.finetune.head import tolerance
from classify.finetune.images import Source
from classify.finetune.trained import Trained
from classify.judged import Judged
from classify.openset import draw_reference, fit_open_set
from classify.parity import spread
from classify.probe.linear import Linear
from extract import golden
from extract.engines.local import Work, open_stream
from extract.errors import DriftError, FitError
from extract.forward import Extractor, rebuild_extractor
from extract.lanes import Stream
from extract.loader import Loaded
from extract.parts import tuned_recipe, whole_state
from extract.spec import ExtractSpec

HEAD = "linear"
ROOM, MOST_APART = 10.0, 0.1
"""Times the tolerance of the probe's head, by which scores of the trained network and of its bundle may differ; but not
by more than this share of their spread, as other images, layers or weights move scores by tenths. Tails of MobileNetV2
trained on float16 maps came out 1e-4 and 2e-4 apart."""


@dataclass(frozen=True, eq=False)
class Deployed:
    """A bundle, its weights file, and rows (m, D) with the scores `expected` (m, C) of them, to be compared.

    `test` (n, C) are the scores of the test part by the network as it is deployed.
    """

    bundle: Bundle
    weights: Path
    rows: np.ndarray
    expected: np.ndarray
    test: np.ndarray


def deploy(
    bench: Bench, source: Source, trained: Trained, answers: np.ndarray, tuned: Judged, folder: Path
) -> Deployed:
    """Make a bundle of a trained network, its weights written into `folder`, and let it answer for the test part.

    The images are read anew, by what `predict` reads them with. Raises FitError where its scores are not `answers`
    (n, C), those of the network that was trained.
    """
    state, path = whole_state(trained.network.parts), folder / "weights.safetensors"
    save_file(state, path)
    spec, data, (coef, intercept) = bench.spec, bench.inputs.data, trained.network.head_arrays()
    width = coef.shape[1]
    linear = Linear(np.zeros(width), np.ones(width), coef, intercept)
    recipe = tuned_recipe(bench.inputs.features.recipe, state, tap=bench.tap)
    extractor = rebuild_extractor(recipe, path, (bench.tap,), device=spec.device)
    test = linear.scores(_rows(bench, extractor, source, data.test.rows, golden_in=folder))
    _check_same(bench, trained.name, test, answers)
    drawn = draw_reference(len(data.train), width, spec.seed)
    X = _rows(bench, extractor, source, data.train.rows[drawn])
    groups = None if data.train.groups is None else data.train.groups[drawn]
    bundle = Bundle(
        recipe=recipe,
        layers=(bench.tap,),
        transform="none",
        head=HEAD,
        kind="linear",
        params=params_of(trained),
        classes=data.classes,
        temperature=tuned.temperature,
        arrays=linear.arrays(),
        conformal=tuned.conformal,
        abstain=tuned.abstain,
        open_set=fit_open_set(X, data.train.y[drawn], groups, n_seen=len(data.train), seed=spec.seed),
    )
    proof = X[spread(len(X))]
    return Deployed(bundle, path, proof, linear.scores(proof), test)


def params_of(trained: Trained) -> dict[str, float | int]:
    """Return what a run says of how its head was found."""
    setting = trained.setting
    return {"rate": setting.rate, "weight_decay": setting.weight_decay, "steps": trained.outcome.best_step}


def _check_same(bench: Bench, name: str, scores: np.ndarray, expected: np.ndarray) -> None:
    """Raise FitError where the deployed scores (n, C) of the test part are not those of the trained network."""
    apart = float(np.abs(scores - expected).max()) / (float(np.ptp(expected)) or 1.0)
    allowed = min(ROOM * tolerance(bench.inputs.features.recipe, cached=bench.examples.cached), MOST_APART)
    if not apart <= allowed:
        said = f"the deployed network answers otherwise than the trained one, by {apart:.1e} of the spread of scores"
        raise FitError(said, where=name, remedy="Report this bug")


def _rows(
    bench: Bench, extractor: Extractor, source: Source, rows: np.ndarray, golden_in: Path | None = None
) -> np.ndarray:
    """Compute the features of images, by their rows in the feature set: (n,) -> (n, D) float64.

    Where a folder is named for them, those of the golden images go there first: they are the bundle's examples.
    """
    records = tuple(source.records[row] for row in rows.tolist())
    wanted = ExtractSpec("", workers=bench.spec.jobs, compile="none")
    bench.log.start("features of the trained network", len(records))
    found: list[np.ndarray] = []
    done = 0
    with open_stream(extractor, wanted, Work(records, len(records)), note=bench.log.note) as stream:
        if golden_in is not None:
            _prove(bench, extractor, stream, golden_in)
        with closing(stream.run(records)) as batches:
            for batch in batches:
                _check_items(bench, rows[done : done + len(batch.items)], batch.items)
                found.append(batch.rows[bench.tap])
                done += len(batch.items)
                bench.log.advance(len(batch.items))
    return np.concatenate(found).astype(np.float64)


def _prove(bench: Bench, extractor: Extractor, stream: Stream, folder: Path) -> None:
    """Write what the golden images become; a precision too coarse for that costs the examples, and no training."""
    try:
        golden.prove(extractor, stream, folder)
    except DriftError as error:
        bench.log.note(f"the bundle has no examples to be proven by ({error.what}, {error.where})")


def _check_items(bench: Bench, rows: np.ndarray, items: Sequence[Loaded]) -> None:
    """Raise FitError at an image that cannot be read, or is another one by now."""
    features = bench.inputs.features
    for row, item in zip(rows.tolist(), items, strict=True):
        same = item.digest == features.sha256[row].tobytes()
        if item.failure or not same:
            said = item.failure.reason if item.failure else "not the image any more whose features these are"
            raise FitError(said, where=features.ids[row], remedy="Extract again, and fit again")
