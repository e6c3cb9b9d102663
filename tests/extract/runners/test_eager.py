import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from extract.backbones import digest
from extract.errors import OptionError
from extract.runners import prepare
from extract.runners.network import build_network
from tests.extract.runners.nets import TOLERANCE, assert_close, in_lanes, named, of_module, pixels

CASES = [
    ("builtin", ("layer1", "layer2.0.conv1", "layer2.0.bn2:max", "layer2:map", "penultimate")),
    ("resnet18", ("conv1", "bn1", "relu", "layer1.0.bn2", "layer2.0.downsample.0", "layer4")),
    ("mobilenet_v2", ("features.1", "features.3.conv.1.1", "features.18.0", "penultimate")),
    ("squeezenet1_1", ("features.0", "features.3", "features.12", "penultimate")),
    ("densenet121", ("features.norm0", "features.denseblock1", "features.transition1.conv", "penultimate")),
    ("efficientnet_b0", ("features.1", "penultimate")),
    ("convnext_tiny", ("features.1", "penultimate")),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("model", "taps"), CASES, ids=[model for model, _ in CASES])
def test_rows_are_those_of_the_plain_reference(model, taps, precision):
    extractor = named(model, *taps, precision=precision, store="float32")
    before = digest(extractor.cut.module.state_dict())
    batch = pixels(extractor, 4)
    exact = extractor.exact(batch)
    rows = prepare(extractor, batch_size=4).lane()(batch)
    assert_close(rows, exact, TOLERANCE[precision])
    assert all(values.dtype == torch.float32 for values in rows.values())
    assert digest(extractor.cut.module.state_dict()) == before, "the reference was changed"
    if precision == "bf16":
        assert not torch.equal(rows[taps[-1]], torch.from_numpy(exact[taps[-1]])), "not computed in bf16"


def test_every_batch_norm_behind_a_convolution_is_folded_but_those_that_a_tap_needs():
    def norms(*taps: str) -> list[str]:
        cut = build_network(named("resnet18", *taps), "fp32").cut
        return [name for name, module in cut.named_modules() if isinstance(module, nn.BatchNorm2d)]

    assert norms("layer1.0.bn1", "penultimate") == []
    assert norms("layer1.0.conv1", "penultimate") == ["layer1.0.bn1"]


def test_a_batch_norm_that_follows_no_convolution_stays():
    cut = build_network(named("densenet121", "penultimate"), "fp32").cut
    left = [name for name, module in cut.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert "features.denseblock1.denselayer1.norm1" in left
    assert not {"features.norm0", "features.denseblock1.denselayer1.norm2"} & set(left)


class Twice(nn.Module):
    """One convolution called twice, one norm called twice, and a norm without statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.own = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(x))
        x = self.other(self.shared(x))
        return self.norm(self.own(self.shared(x)))


def test_what_is_called_twice_is_not_folded():
    extractor = of_module(Twice(), "norm_1", "other")
    batch = pixels(extractor, 2)
    assert_close(prepare(extractor, batch_size=2).lane()(batch), extractor.exact(batch), 1e-5)


class Activations(nn.Module):
    """Layers and activations that are fused, and some that must not be."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 8, 8, 8, 8, 8, 8, 8, 8]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        self.same = nn.Conv2d(8, 8, 3, padding="same")
        self.mirrored = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect", dilation=1)
        self.strided = nn.Conv2d(8, 8, (3, 5), stride=2, padding=2, dilation=(2, 1), groups=4, bias=False)
        self.acts = nn.ModuleList([nn.ReLU(inplace=True), nn.ReLU6(), nn.SiLU(), nn.Hardswish(), nn.Sigmoid()])
        self.tanh_gelu, self.gelu = nn.GELU("tanh"), nn.GELU()
        self.linear, self.last = nn.Linear(8, 16), nn.Linear(16, 8)
        with torch.no_grad():
            self.convs[5].weight.mul_(20)  # the variants of GELU differ where it bends

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(5):
            x = self.acts[i](self.convs[i](x)) - 0.2
        x = F.relu(self.same(x)) + torch.relu(self.mirrored(x))
        x = F.relu(self.strided(x), inplace=True)
        x = self.tanh_gelu(self.convs[5](x))
        kept = self.convs[6](x)
        x = kept * F.relu(kept)
        x = self.acts[0](self.convs[7](x))
        return self.last(self.gelu(self.linear(x.permute(0, 2, 3, 1)))).mean((1, 2))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fused_activations_say_the_same(monkeypatch, fused, precision):
    monkeypatch.setattr("extract.runners.eager.fuses", lambda: fused)
    taps = "convs.1", "acts.2", "convs.3", "relu", "tanh_gelu", "convs.6:max", "convs.7", "mean"
    extractor = of_module(Activations(), *taps, precision=precision)
    batch = pixels(extractor, 3)
    assert_close(prepare(extractor, batch_size=3).lane()(batch), extractor.exact(batch), TOLERANCE[precision])


def test_activations_are_fused_where_a_convolution_alone_is_read_by_them():
    extractor = of_module(Activations(), "convs.3", "mean")
    runner = prepare(extractor, batch_size=2)
    names = {node.target for node in runner._network.cut.graph.nodes if node.op == "call_module"}
    assert {"convs.0_relu", "convs.1_hardtanh", "convs.2_swish", "convs.4_none", "convs.5_gelu"} <= names
    assert {"convs.3_none", "acts.3", "convs.6_none", "same", "mirrored", "strided_relu", "linear_gelu"} <= names
    assert not {"acts.1", "acts.2", "tanh_gelu", "gelu"} & names


def test_a_processor_without_bf16_computes_it_all_the_same(monkeypatch):
    extractor = named("builtin", "layer1", precision="bf16", store="float32")
    monkeypatch.setattr("extract.runners.eager.computes_bf16", lambda _: False)
    runner = prepare(extractor, batch_size=2)
    assert "conv1_relu" not in {node.target for node in runner._network.cut.graph.nodes}
    batch = pixels(extractor, 2)
    assert_close(runner.lane()(batch), extractor.exact(batch), TOLERANCE["bf16"])


def test_rows_come_in_the_stored_type():
    extractor = named("builtin", "layer1", "layer2:map", store="float16")
    batch = pixels(extractor, 3)
    rows = prepare(extractor, batch_size=4).lane()(batch)
    for name, values in extractor.exact(batch).items():
        assert rows[name].dtype == torch.float16
        torch.testing.assert_close(rows[name], torch.from_numpy(values).half(), rtol=1e-3, atol=1e-5)


def test_what_float16_cannot_hold_is_infinite():
    extractor = named("builtin", "conv1:max", store="float16")
    with torch.no_grad():
        extractor.cut.module.get_parameter("conv1.weight").mul_(1e6)
    assert prepare(extractor, batch_size=1).lane()(pixels(extractor, 1))["conv1:max"].isinf().any()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_smaller_batch_has_the_same_rows(precision):
    extractor = named("builtin", "layer2", "penultimate", precision=precision, store="float32")
    lane, batch = prepare(extractor, batch_size=6).lane(), pixels(extractor, 6)
    whole = lane(batch)
    part = lane(batch[:1])
    for name, rows in whole.items():
        torch.testing.assert_close(part[name], rows[:1], rtol=1e-5, atol=1e-6)


def test_lanes_side_by_side_give_the_rows_of_one():
    extractor = named("builtin", "layer2", "penultimate")
    runner = prepare(extractor, batch_size=3)
    batches = [pixels(extractor, 3, seed=seed) for seed in range(4)]
    alone, found = [runner.lane()(batch) for batch in batches], {}

    def work(i):
        return lambda lane: [found.setdefault((i, turn), lane(batches[i])) for turn in range(5)]

    in_lanes(runner, [work(i) for i in range(4)])
    assert len(found) == 20
    for (i, _), rows in found.items():
        for name, values in rows.items():
            torch.testing.assert_close(values, alone[i][name], rtol=1e-6, atol=1e-7)


class Untraceable(nn.Module):
    """A network that decides by its input, and calls one module twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.act = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.norm(self.first(x)))
        if x.sum() >= 0:
            x = self.act(x - 0.1)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_that_is_watched_runs_in_lanes_too(precision):
    extractor = of_module(Untraceable(), "first", "act_1", "penultimate", precision=precision, hooks=True)
    runner = prepare(extractor, batch_size=3)
    batches, found = [pixels(extractor, 3, seed=seed) for seed in range(4)], {}

    def work(i):
        return lambda lane: [found.setdefault((i, turn), lane(batches[i])) for turn in range(8)]

    in_lanes(runner, [work(i) for i in range(4)])
    for (i, _), rows in found.items():
        assert_close(rows, extractor.exact(batches[i]), TOLERANCE[precision])


@pytest.mark.parametrize("compiler", ["inductor", "openvino"])
def test_a_network_that_is_watched_cannot_be_compiled(compiler):
    if compiler == "openvino":
        pytest.importorskip("openvino")
    with pytest.raises(OptionError, match="traced"):
        prepare(of_module(Untraceable(), "first", hooks=True), batch_size=1, compiler=compiler)


def test_an_unknown_compiler_is_refused_by_name():
    with pytest.raises(OptionError, match=r"no compiler 'tvm'.*none, inductor, openvino"):
        prepare(named("builtin", "layer1"), batch_size=1, compiler="tvm")


def test_the_network_is_frozen_and_its_buffers_never_change():
    extractor = named("resnet18", "layer1.0.conv1", "penultimate")
    runner = prepare(extractor, batch_size=2)
    before = copy.deepcopy(runner._network.state_dict())
    runner.lane()(pixels(extractor, 2))
    after = runner._network.state_dict()
    assert all(torch.equal(values, after[name]) for name, values in before.items())
    assert not any(module.training for module in runner._network.modules())
    assert not any(parameter.requires_grad for parameter in runner._network.parameters())
