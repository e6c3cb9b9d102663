from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from extract import images, verdict
from extract.lanes import STAGES
from extract.recipe import Preprocessing, Recipe, Tap
from extract.shard import Receipt, Stages
from extract.verdict import HINTS, judge
from tests.tiny import tiny_spec

RECIPE = Recipe(
    model="builtin:x",
    weights_sha256="0" * 64,
    taps=(Tap("layer1"),),
    nodes=("layer1",),
    preprocessing=Preprocessing(32, 32, "bilinear", (0.5,) * 3, (0.5,) * 3),
    decoder=images.DECODERS["exact"],
    precision="fp32",
    store="float32",
)
SPEC = tiny_spec("", Path("cache"), workers=2)


def receipt(rows: int = 10, span: tuple[float, float] = (100, 102), **seconds: float) -> Receipt:
    stages = Stages()
    stages.add(seconds)
    return Receipt("a.h5", rows, 0, stages, span, "eager")


@pytest.fixture(autouse=True)
def machine(monkeypatch) -> SimpleNamespace:
    """A machine of two cores, without a GPU, bf16 or the faster decoder."""
    known = SimpleNamespace(cuda=False, bf16=False)
    monkeypatch.setattr(verdict.torch.cuda, "is_available", lambda: known.cuda)
    monkeypatch.setattr(verdict, "computes_bf16", lambda _: known.bf16)
    monkeypatch.setattr(verdict, "available_cores", lambda: 2)
    monkeypatch.setattr(images, "simplejpeg", None)
    return known


def hint(stage: str, spec: Any = SPEC, **recipe: Any) -> str:
    return HINTS[stage](spec, replace(RECIPE, **recipe))


def test_without_a_receipt_there_is_nothing_to_say():
    found = judge([], SPEC, RECIPE)
    assert found["stages"] == dict.fromkeys(STAGES, 0.0)
    assert [found[name] for name in ("images_per_s", "bottleneck", "hint", "runner")] == [None] * 4


def test_a_receipt_of_no_time_at_all_is_no_reason_to_fail():
    found = judge([receipt(span=(100, 100))], SPEC, RECIPE)
    assert found["images_per_s"] > 0
    assert (found["bottleneck"], found["runner"]) == (None, "eager")


def test_receipts_add_up():
    receipts = [receipt(10, (101, 103), read=1, forward=2), receipt(30, (100, 104), decode=3, forward=1, write=1)]
    found = judge(receipts, SPEC, RECIPE)
    assert found["images_per_s"] == 10.0, "40 images between the first beginning and the last end"
    assert found["stages"] == {"read": 0.125, "decode": 0.375, "transfer": 0.0, "forward": 0.375, "write": 0.125}
    assert sum(receipts[0].stages.seconds.values()) == 3, "they stay as they are"


@pytest.mark.parametrize("stage", STAGES)
def test_the_longest_stage_holds_the_others_up_and_has_a_hint(stage):
    found = judge([receipt(**{**dict.fromkeys(STAGES, 1), stage: 2})], SPEC, RECIPE)
    assert found["bottleneck"] == stage
    assert found["hint"] == hint(stage)
    assert set(HINTS) == set(STAGES)


def test_a_slow_decoder_is_helped_by_what_is_not_there_yet(machine, monkeypatch):
    assert "offshelf[turbo]" in hint("decode")
    assert "--decoder scaled" in hint("decode")
    assert "--workers" not in hint("decode")
    assert "--decoder gpu" not in hint("decode")
    assert "--workers 2" in hint("decode", replace(SPEC, workers=1))
    machine.cuda = True
    assert "--decoder gpu" in hint("decode")
    monkeypatch.setattr(images, "simplejpeg", object())
    assert hint("decode", decoder=images.DECODERS["scaled"]) == "decoding is the limit: smaller images"


def test_a_slow_network_is_helped_by_what_the_machine_has(machine):
    assert hint("forward") == "the network is the limit: a GPU, a smaller network"
    assert "--compile auto" in hint("forward", replace(SPEC, compile="none"))
    machine.bf16 = True
    assert "--precision bf16 (other features)" in hint("forward")
    assert "--precision" not in hint("forward", precision="bf16")
    machine.cuda = True
    assert "--device cuda" in hint("forward")
    assert "--device cuda" not in hint("forward", replace(SPEC, device="cuda:0,cuda:1"))


def test_slow_writing_is_helped_by_fewer_bytes():
    assert "--store float16" in hint("write")
    assert "--store" not in hint("write", store="float16")
