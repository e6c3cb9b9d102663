import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from extract.forward import Extractor, build_extractor
from extract.runners import choice
from tests.tiny import tiny_spec

EAGER, COMPILED = SimpleNamespace(name="eager"), SimpleNamespace(name="openvino")


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return build_extractor(tiny_spec("", Path("cache")))


@pytest.fixture
def measured(monkeypatch) -> Callable[[float, float], None]:
    """Let an image take so many seconds, eager and compiled, on a machine with OpenVINO."""

    def measured(eager_s: float, compiled_s: float) -> None:
        runners = {"none": EAGER, "openvino": COMPILED}
        monkeypatch.setattr(choice, "compiler_for", lambda _: "openvino")
        monkeypatch.setattr(choice, "prepare", lambda *_, compiler="none", **__: runners[compiler])
        monkeypatch.setattr(choice, "image_s", lambda runner, *_: compiled_s if runner is COMPILED else eager_s)

    return measured


def chosen(extractor: Extractor, n_images: int) -> tuple[object, str]:
    return choice.choose(extractor, n_images=n_images, batch_size=4, lanes=2)


def test_a_few_images_are_not_even_timed(extractor, monkeypatch):
    monkeypatch.setattr(choice, "image_s", lambda *_: 1 / 0)
    runner, why = chosen(extractor, choice.MIN_IMAGES - 1)
    assert (runner.name, why) == ("eager", "")


def test_a_job_that_is_shorter_than_compiling_pays_stays_eager(extractor, measured):
    measured(0.01, 0.001)
    runner, why = chosen(extractor, 4000)
    assert runner is EAGER
    assert why == "eager: the network will take about 40 s, and compiling pays from 43 s"


@pytest.mark.parametrize(("lanes", "n_images", "timings"), [(2, 500, 1), (2, 2000, 1), (2, 10_000, 3), (32, 2000, 0)])
def test_no_more_than_a_share_of_the_time_goes_into_trying(extractor, monkeypatch, lanes, n_images, timings):
    spent = []

    def image_s(_: object, __: Extractor, batch_size: int, lanes: int) -> float:
        spent.append((choice.ROUNDS + 1) * batch_size * lanes * 0.05)
        return 0.05

    monkeypatch.setattr(choice, "compiler_for", lambda _: "openvino")
    monkeypatch.setattr(choice, "prepare", lambda *_, compiler="none", **__: {"none": EAGER}.get(compiler, COMPILED))
    monkeypatch.setattr(choice, "image_s", image_s)
    choice.choose(extractor, n_images=n_images, batch_size=32, lanes=lanes)
    compiling_s = choice.COMPILE_S["openvino"] if len(spent) > 1 else 0
    assert compiling_s + sum(spent) <= 1.3 * choice.SHARE * n_images * 0.05
    assert len(spent) == timings


def test_a_long_job_takes_what_is_faster(extractor, measured):
    measured(0.01, 0.005)
    runner, why = chosen(extractor, 20_000)
    assert runner is COMPILED
    assert re.match(r"openvino: openvino is 2\.00 x as fast as eager on this network, compiled in \d+ s", why)
    assert why.endswith("eager would take 200 s")


def test_what_was_compiled_and_gains_nothing_is_left(extractor, measured):
    measured(0.01, 0.0098)
    runner, why = chosen(extractor, 20_000)
    assert runner is EAGER
    assert why.startswith("eager: openvino is 1.02 x as fast")


def test_no_compiler_for_a_network_that_is_only_watched(extractor):
    watched = SimpleNamespace(cut=SimpleNamespace(module=torch.nn.Identity()), device=torch.device("cpu"))
    assert choice.compiler_for(watched) is None


@pytest.mark.parametrize(
    ("device", "openvino", "cpp", "expected"),
    [
        ("cpu", True, True, "openvino"),
        ("cpu", False, True, "inductor"),
        ("cpu", False, False, None),
        ("cuda", True, False, "inductor"),
    ],
)
def test_the_compiler_is_one_that_is_there(extractor, monkeypatch, device, openvino, cpp, expected):
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: name if openvino else None)
    monkeypatch.setattr(choice, "has_cpp_compiler", lambda: cpp)
    assert choice.compiler_for(SimpleNamespace(cut=extractor.cut, device=torch.device(device))) == expected


def test_all_lanes_are_timed_together_each_in_a_thread_of_its_own(extractor):
    seen: list[tuple[str, int]] = []

    class Counted:
        name = "counted"

        def lane(self) -> Callable[[Tensor], dict[str, Tensor]]:
            def run(pixels: Tensor) -> dict[str, Tensor]:
                seen.append((threading.current_thread().name, len(pixels)))
                return {"x": pixels}

            return run

    assert choice.image_s(Counted(), extractor, 5, 3) > 0
    assert sorted(set(seen)) == [("time 0", 5), ("time 1", 5), ("time 2", 5)]
    assert len(seen) == 3 * (choice.ROUNDS + 1)


def test_an_error_in_a_lane_is_no_hang(extractor):
    class Broken:
        name = "broken"
        calls = 0

        def lane(self) -> Callable[[Tensor], dict[str, Tensor]]:
            self.calls += 1
            number = self.calls

            def run(pixels: Tensor) -> dict[str, Tensor]:
                if number == 1:
                    raise ZeroDivisionError
                return {"x": pixels}

            return run

    with pytest.raises(ZeroDivisionError):
        choice.image_s(Broken(), extractor, 2, 2)
