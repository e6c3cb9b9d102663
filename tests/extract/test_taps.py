import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from extract.backbones import open_skeleton
from extract.backbones.torchvision_nets import TWO_HEADED
from extract.errors import TapError
from extract.pooling import make_pool
from extract.taps import Cut, GraphTrunk, HookTrunk, open_trunk, stage_ends

ONE_OF_EACH_FAMILY = {
    "alexnet": "classifier.5",
    "convnext_tiny": "classifier.1",
    "densenet121": "flatten",
    "efficientnet_b0": "flatten",
    "googlenet": "flatten",
    "inception_v3": "flatten",
    "mnasnet0_5": "mean",
    "mobilenet_v2": "flatten",
    "mobilenet_v3_small": "classifier.1",
    "regnet_x_400mf": "flatten",
    "resnet18": "flatten",
    "resnext50_32x4d": "flatten",
    "shufflenet_v2_x0_5": "mean",
    "squeezenet1_1": "features.12.cat",
    "vgg11_bn": "classifier.4",
}
AVG = make_pool("avg")


def network(name: str) -> nn.Module:
    options = {"aux_logits": True, "transform_input": True, "init_weights": False} if name in TWO_HEADED else {}
    torch.manual_seed(0)
    return models.get_model(name, weights=None, **options).eval()


def images(n: int = 2, side: int = 96) -> torch.Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def received_by_classifier(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the last linear or 1x1 layer that runs is given, caught by a hook of its own."""
    caught = []

    def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        caught.append(inputs[0].clone())

    for module in net.modules():
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)):
            module.register_forward_pre_hook(keep)
    with torch.inference_mode():
        net(x)
    last = caught[-1]
    return last.mean((2, 3)) if last.dim() == 4 else last


@pytest.mark.parametrize("name", ONE_OF_EACH_FAMILY)
def test_penultimate_is_what_the_classifier_receives(name):
    net, x = network(name), images(side=299 if name == "inception_v3" else 96)
    trunk = GraphTrunk(net)
    assert trunk.penultimate() == ONE_OF_EACH_FAMILY[name]
    with torch.inference_mode():
        rows = trunk.cut({"penultimate": (trunk.penultimate(), AVG)}).run(x)["penultimate"]
    torch.testing.assert_close(rows, received_by_classifier(net, x), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "densenet121"])
def test_hooks_and_graph_give_the_same_rows(name):
    net, x = network(name), images()
    graph, hooks = GraphTrunk(net), HookTrunk(net, 96)
    layers = hooks.stages(96)[:3]
    with torch.inference_mode():
        expected = cut_at(graph, layers).run(x)
        found = cut_at(hooks, layers).run(x)
    assert found.keys() == expected.keys()
    for layer, rows in expected.items():
        torch.testing.assert_close(found[layer], rows, rtol=0, atol=0)


def cut_at(trunk, layers):
    taps = {layer: (trunk.resolve(layer), AVG) for layer in layers}
    return trunk.cut(taps | {"penultimate": (trunk.penultimate(), AVG)})


def test_hooks_stop_after_the_deepest_tap_and_drop_what_follows():
    net = network("resnet18")
    trunk = HookTrunk(net, 96)
    cut = trunk.cut({"layer2": ("layer2", AVG)})
    calls = []
    cut.module.layer3.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        cut.run(images())
    assert not calls
    assert not [name for name in cut.module.state_dict() if name.startswith(("layer3", "layer4", "fc"))]


def test_a_layer_equals_torchvisions_own_feature_extractor():
    net, x = network("resnet18"), images()
    trunk = GraphTrunk(net)
    with torch.inference_mode():
        expected = create_feature_extractor(net, {"layer2": "layer2"})(x)["layer2"].mean((2, 3))
        rows = trunk.cut({"layer2": (trunk.resolve("layer2"), AVG)}).run(x)["layer2"]
    torch.testing.assert_close(rows, expected, rtol=0, atol=0)


@pytest.mark.parametrize("layer", ["bn1", "layer1.0.bn2", "layer1.0.conv1", "layer2.0.bn2"])
def test_what_comes_in_place_after_a_tap_does_not_change_it(layer):
    net, x = network("resnet18"), images()
    caught = {}
    net.get_submodule(layer).register_forward_hook(lambda m, i, output: caught.update(output=output.clone()))
    for trunk in (GraphTrunk(net), HookTrunk(net, 96)):
        with torch.inference_mode():
            rows = trunk.cut({"tap": (layer, AVG), "end": (trunk.penultimate(), AVG)}).run(x)["tap"]
            net(x)
        torch.testing.assert_close(rows, caught["output"].mean((2, 3)), rtol=0, atol=0)


def test_densenets_features_are_taken_before_the_activation_and_its_penultimate_after():
    net, x = network("densenet121"), images()
    trunk = GraphTrunk(net)
    taps = {"features": (trunk.resolve("features"), AVG), "penultimate": (trunk.penultimate(), AVG)}
    with torch.inference_mode():
        rows = trunk.cut(taps).run(x)
        features = net.features(x)
    torch.testing.assert_close(rows["features"], features.mean((2, 3)), rtol=0, atol=0)
    torch.testing.assert_close(rows["penultimate"], features.relu().mean((2, 3)))


def test_only_what_the_deepest_tap_needs_is_left():
    trunk = GraphTrunk(open_skeleton("resnet18"))
    names = trunk.cut({"layer1": (trunk.resolve("layer1"), AVG)}).module.state_dict()
    assert {name.split(".")[0] for name in names} == {"conv1", "bn1", "layer1"}
    googlenet = GraphTrunk(open_skeleton("googlenet"))
    left = googlenet.cut({"p": (googlenet.penultimate(), AVG)}).module.state_dict()
    assert not [name for name in left if name.startswith(("aux", "fc"))]


STAGES = {
    "resnet18": ["relu", "layer1", "layer2", "layer3", "layer4"],
    "mobilenet_v2": ["features.1", "features.3", "features.6", "features.13", "features.18"],
    "vgg11": ["features.1", "features.4", "features.9", "features.14", "features.19", "avgpool"],
    "squeezenet1_1": ["features.1", "features.4", "features.7", "features.12"],
    "convnext_tiny": ["features.1", "features.3", "features.5", "features.7"],
    "inception_v3": ["Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c"],
    "regnet_y_400mf": ["stem", *(f"trunk_output.block{i}" for i in (1, 2, 3, 4))],
}


@pytest.mark.parametrize("name", STAGES)
def test_stages_end_where_the_resolution_falls(name):
    assert GraphTrunk(open_skeleton(name)).stages(299 if name == "inception_v3" else 224) == STAGES[name]


def test_stage_ends_ignore_a_trimmed_border():
    assert stage_ends([("a", 149), ("b", 147), ("c", 73), ("d", 71), ("e", 35)]) == ["b", "d", "e"]


def test_the_profile_counts_parameters_and_operations():
    profile = GraphTrunk(open_skeleton("resnet18")).profile(224)
    assert profile[-1].parameters == 11_689_512
    assert profile[-1].flops == pytest.approx(3.628e9, rel=1e-3)
    nodes = {node.name: node for node in profile}
    assert nodes["layer1.1.relu_1"].shape == (64, 56, 56)
    assert nodes["conv1"].parameters == 64 * 3 * 49


def test_an_unknown_layer_is_told_with_the_nearest():
    with pytest.raises(TapError, match=r"no layer 'layer5' \(nearest: 'layer\d'\).*pipeline.py layers"):
        GraphTrunk(open_skeleton("resnet18")).resolve("layer5")


def test_channels_last_inside_a_block_is_refused_not_averaged_the_wrong_way():
    trunk = GraphTrunk(network("convnext_tiny"))
    with pytest.raises(TapError, match="no map"):
        trunk.cut({"t": (trunk.resolve("features.1.0.block.3"), AVG)}).run(images())


def test_a_network_without_a_classifier_has_no_penultimate():
    headless = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    for trunk in (GraphTrunk(headless), HookTrunk(headless, 8)):
        with pytest.raises(TapError, match="does not end in a linear"):
            trunk.penultimate()


class Branching(nn.Module):
    """A network that a tracer cannot follow: what it does depends on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        if x.sum() > 1e9:
            x = x * 2
        return self.fc(x.relu().mean((2, 3)))


def test_a_network_that_cannot_be_traced_is_watched_through_hooks():
    net, x = Branching().eval(), images(side=8)
    trunk = open_trunk(net)
    assert isinstance(trunk, HookTrunk)
    with torch.inference_mode():
        rows = trunk.cut({"p": (trunk.penultimate(), AVG), "conv": ("conv", AVG)}).run(x)
        assert torch.equal(rows["p"], net.conv(x).relu().mean((2, 3)))
        assert torch.equal(rows["conv"], net.conv(x).mean((2, 3)))


def between(net: nn.Module, start: str, end: str = "end") -> Cut:
    trunk = GraphTrunk(net)
    return trunk.between(trunk.resolve(start), {"rows": (trunk.resolve(end), AVG)})


PARTED = {"resnet18": "layer3", "squeezenet1_1": "features.7", "densenet121": "features.denseblock3"}


@pytest.mark.parametrize("name", PARTED)
def test_what_lies_between_a_layer_and_a_tap_goes_on_from_there(name):
    net, x = network(name), images()
    trunk = GraphTrunk(net)
    end = trunk.penultimate()
    both = {"maps": (trunk.resolve(PARTED[name]), torch.clone), "rows": (end, AVG)}
    above = trunk.between(trunk.resolve(PARTED[name]), {"rows": (end, AVG)})
    with torch.inference_mode():
        whole = trunk.cut(both).run(x)
        assert above.run(whole["maps"])["rows"].equal(whole["rows"])
    assert not [weight for weight in above.module.state_dict() if weight.startswith((PARTED[name], "fc", "classifier"))]


class Steps(nn.Module):
    """Works in place on what comes in, and ends in rows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.end = nn.Conv2d(4, 5, 3)
        self.fc = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.end(self.relu(self.conv(x))).mean((2, 3)))


class Twice(Steps):
    """One convolution below and above another, and a sum with what is below."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
        self.middle = nn.Conv2d(4, 4, 1)
        self.tied = nn.Conv2d(4, 4, 1)
        self.top = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        below = self.tied(self.stem(x))
        return self.fc(self.end(self.top(self.tied(self.middle(below))) + below).mean((2, 3)))


def test_a_map_that_is_given_is_left_as_it_is():
    net = Steps()
    maps = torch.randn(2, 4, 8, 8)
    given = maps.clone()
    rows = between(net, "conv").run(maps)["rows"]
    assert maps.equal(given), "a ReLU that works in place comes first"
    assert rows.equal(net.end(maps.relu()).mean((2, 3)))


def test_what_lies_between_has_weights_of_its_own():
    net = Steps()
    above = between(net, "conv")
    assert above.module.state_dict().keys() == {"end.weight", "end.bias"}
    above.module.get_submodule("end").weight.data.zero_()
    assert net.end.weight.any()


def test_where_a_network_cannot_be_parted_the_nearest_modules_are_named():
    for start, said in {
        "middle": "cannot be parted at 'middle': what comes before is needed behind it, too. Take stem",
        "tied_1": "cannot be parted at 'tied_1'",
        "end": "nothing is between 'end' and 'end', where the network ends. Take a lower layer to keep",
        "mean": "nothing is between 'mean' and 'end'",
    }.items():
        with pytest.raises(TapError, match=said):
            between(Twice(), start)
    with pytest.raises(TapError, match=r"Take features\.transition1 or features\.denseblock2$"):
        between(open_skeleton("densenet121"), "features.denseblock2.denselayer3.conv1", "features")


def test_weights_that_are_needed_on_both_sides_keep_a_network_whole():
    class Tied(Twice):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.end(self.tied(self.middle(self.tied(self.stem(x))))).mean((2, 3)))

    with pytest.raises(TapError, match="cannot be parted at 'middle'"):
        between(Tied(), "middle")
    assert between(Tied(), "stem").run(torch.randn(1, 4, 8, 8))["rows"].shape == (1, 5)
    assert between(Tied(), "tied_1").module.state_dict().keys() == {"end.weight", "end.bias"}


def test_a_network_that_cannot_be_traced_cannot_be_parted():
    with pytest.raises(TapError, match=r"cannot be traced cannot be parted.*--strategy"):
        HookTrunk(Branching(), 8).between("conv", {"rows": ("fc", AVG)})
