import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm

from classify.advise.profile import Answered, Profile, TapScore
from classify.advise.rungs import Answers
from classify.advise.wider import FIXED, Wider, answers_of, foresee
from classify.bundle import read_bundle
from classify.finetune.images import find_source
from classify.fit import fit
from classify.hygiene import find_duplicates
from classify.inputs import open_for_fit, read_inputs
from classify.linear import fit_probe
from classify.spec import FitSpec
from classify.tuning import TuneSpec
from extract.errors import FitError
from extract.progress import Silent
from extract.run import extract
from extract.spec import BackboneSpec
from extract.store import open_features
from tests.classify.advise.little_around import little_around
from tests.classify.tiny_task import tiny_task
from tests.tiny import tiny_spec

N, SIDE_PX = 40, 32
SIZES = (("resize_size", SIDE_PX), ("crop_size", SIDE_PX))
TAP = "layer1:grid:2"


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with little_around("classify.advise.auto"):
        yield


def diagonal(rising: bool, seed: int) -> Image.Image:
    """Two spots under noise, opposite each other, on one diagonal or on the other: what no mean over places tells."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 90, (SIDE_PX, SIDE_PX, 3))
    for x, y in ((5, 5), (23, 23)):
        left, top = np.add((x, y), rng.integers(-2, 3, 2))
        image[top : top + 4, left : left + 4] += 120
    return Image.fromarray((image[::-1] if rising else image).astype(np.uint8))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with spots/ and features of them of the last layer alone, pooled to a mean."""
    folder = tmp_path_factory.mktemp("wider")
    for name in ("falling", "rising"):
        (folder / "spots" / name).mkdir(parents=True)
        for i in range(N):
            diagonal(name == "rising", 1000 * (name == "rising") + i).save(folder / "spots" / name / f"{i:02}.png")
    extract(spots(folder))
    return folder


def spots(root: Path, **changes):
    known = {"backbone": BackboneSpec("builtin", "none", overrides=SIZES), "taps": ("penultimate",), "name": "spots"}
    return tiny_spec(root / "spots", root / "cache", **known | changes)


Begun = Callable[..., tuple[Wider, Answers]]


@pytest.fixture
def begun(root: Path) -> Begun:
    def begin(name: str = "spots", **changes) -> tuple[Wider, Answers]:
        known = {"cv": 3, "jobs": 1, "duplicates": "off", "device": "cpu", "strategy": "auto"}
        spec = FitSpec(name, cache=root / "cache", **known | changes)
        inputs = read_inputs(spec, open_for_fit(spec), Silent())
        source = find_source(inputs.features, np.arange(len(inputs.features)), None, None)
        probe = fit_probe(spec, inputs, Silent())
        return Wider(spec, inputs, probe, source, TAP, Silent()), answers_of(probe)

    return begin


def test_one_more_layer_is_that_of_features_which_were_extracted_with_it(begun, root):
    wider, first = begun()
    offer = wider.offer(left_s=1e6)
    assert offer.fits
    assert offer.seconds >= wider.probe.seconds
    assert not wider.offer(left_s=0.0).fits
    assert wider.command()[:5] == ["offshelf", "fit", "spots", "--strategy", "auto"]
    found = wider.train()
    assert (found.named == wider.inputs.task.y).mean() > (first.named == wider.inputs.task.y).mean() + 0.1
    assert open_features("spots-taps", root / "cache").layers == [TAP, "penultimate"]
    extract(spots(root, taps=("penultimate", TAP), name="by-hand"))
    plain = fit(FitSpec("by-hand", cache=root / "cache", cv=3, jobs=1, duplicates="off", strategy="linear",
                        device="cpu", out=root / "by-hand"))  # fmt: skip
    assert plain["cv"]["accuracy"]["value"] == (found.named == wider.inputs.task.y).mean()
    assert plain["layers"] == found.settings["layers"]
    name = open_features("spots-taps", root / "cache").folder
    assert wider.command()[:5] == ["offshelf", "fit", f"spots-taps/{name.name}", "--strategy", "linear"]


def test_few_columns_more_of_few_images_take_little_more_than_the_probe_did(begun, monkeypatch):
    wider, _ = begun()
    monkeypatch.setattr("classify.advise.wider.dry_run", lambda *_: {"estimated_s": 1.0, "layers": {TAP: [64]}})
    n, had, took = len(wider.first.task.y), 128, wider.probe.seconds
    assert wider.offer(1e6).seconds == pytest.approx(1 + took * (n * (had + 64) + FIXED) / (n * had + FIXED))
    assert 1 + took < wider.offer(1e6).seconds < 1 + 1.1 * took
    wider.first = replace(wider.first, task=replace(wider.first.task, y=np.zeros(10**7, np.int64)))
    assert wider.offer(1e6).seconds == pytest.approx(1 + 1.5 * took, rel=1e-3)


def test_where_layers_were_named_these_and_the_one_more_are_chosen_from(begun):
    wider, _ = begun(layers=("penultimate",))
    wider.train()
    assert list(wider.inputs.dims) == [TAP, "penultimate"]


def test_near_duplicates_are_found_by_the_layer_that_the_folds_were_made_by(begun, root, monkeypatch):
    extract(spots(root, taps=("layer1",), name="early"))
    seen = []

    def noted(features, layer, *known, **more):
        seen.append(layer)
        return find_duplicates(features, layer, *known, **more)

    monkeypatch.setattr("classify.inputs.find_duplicates", noted)
    wider, _ = begun(name="early", duplicates="always")
    wider.train()
    assert list(wider.inputs.dims) == ["layer1", TAP]
    assert seen == ["layer1", "layer1"]


def test_other_folds_than_those_of_the_probe_are_refused(begun):
    wider, _ = begun()
    wider.spec = replace(wider.spec, seed=7)
    with pytest.raises(FitError, match=r"other folds than before.*Extract the features anew"):
        wider.train()


def test_a_fit_that_chooses_takes_what_keeps_the_places_where_they_tell_the_classes(root):
    tune = TuneSpec(steps=2, batch_size=16, rates=(0.03,), seeds=1, views=2, budget_s=1e6)
    metrics = fit(FitSpec("spots", cache=root / "cache", cv=3, jobs=1, duplicates="off", strategy="auto", tune=tune,
                          device="cpu", out=root / "auto"))  # fmt: skip
    taps = next(row for row in metrics["advice"]["ladder"] if row["rung"] == "taps")
    assert (taps["tried"], taps["accepted"]) == (True, True)
    assert taps["predicted"]["p"] > 0.2
    assert taps["gain"]["low"] > 0
    assert taps["command"][3:5] == metrics["advice"]["recommendation"]["command"][3:5] == ["--strategy", "linear"]
    assert metrics["features"].startswith("spots-taps/")
    assert (metrics["strategy"], metrics["advice"]["recommendation"]["rung"]) == ("linear", "taps")
    assert "one more of its layers" in metrics["advice"]["recommendation"]["words"]
    assert json.loads((root / "auto" / "metrics.json").read_text()) == metrics
    assert metrics["test"]["accuracy"]["value"] > 0.8
    assert read_bundle(root / "auto" / "bundle").layers == tuple(metrics["layers"])


def profile_of(codes: np.ndarray, at: np.ndarray) -> Profile:
    none = {"value": 0.0, "low": 0.0, "high": 0.0}
    taps = tuple(TapScore(f"layer{k}", 8, none, none, none) for k in range(len(codes)))
    return Profile(taps, none, none, "layer0", len(at), "accuracy", answered=Answered(at, codes))


def test_what_one_more_layer_gains_is_foreseen_from_the_images_that_both_answered_for():
    y = np.tile([0, 1], 100)
    task, at = tiny_task(y, {"tap": np.zeros((200, 1))}), np.arange(0, 200, 2) + (np.arange(100) % 2)

    def wrong(n: int, labels: np.ndarray) -> np.ndarray:
        return np.where(np.arange(len(labels)) < n, 1 - labels, labels)

    codes, probe = np.stack([wrong(n, y[at]) for n in (2, 30, 10)]), Answers(np.arange(200), wrong(60, y))
    found = foresee(profile_of(codes, at), ["layer0"], task, probe)
    assert found is not None
    assert found.tap == "layer2"
    assert found.gain.mean == pytest.approx(0.2)
    assert found.gain.top == pytest.approx(0.3)
    assert found.gain.above(0.01) > 0.99
    assert foresee(profile_of(codes, at), ["layer0", "layer1", "layer2"], task, probe) is None
    worse = foresee(profile_of(np.stack([wrong(60, y[at])]), at), [], task, probe)
    assert worse is not None
    assert worse.gain.above(0.01) < 0.01
    alike = foresee(profile_of(wrong(60, y)[None, at], at), [], task, probe)
    assert alike is not None
    assert alike.gain.above(0.01) == pytest.approx(norm.sf(0.01 * 102 / np.sqrt(2)))  # one more gained, one lost
