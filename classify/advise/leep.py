"""What the network's own classifier says of images whose classes it does not know, and what that tells of theirs."""

import numpy as np
import torch
from scipy.special import softmax
from torch import nn

from extract.backbones import KINDS, open_backbone, open_skeleton, read_state
from extract.backbones.weights import State
from extract.errors import FitError
from extract.spec import BackboneSpec
from extract.store.reader import FeatureSet
from extract.taps import Trunk, open_trunk

COUNTER = "num_batches_tracked"
"""Of BatchNorm: older files lack it, and no row depends on it."""


def leep(shares: np.ndarray, y: np.ndarray) -> float:
    """Return the mean log of what the source classes predict of the images' own: shares (n, Z), y (n,) codes -> <= 0.

    LEEP (Nguyen et al. 2020, equation 2): log sum_z P(y|z) shares_z, P being the empirical distribution. A source class
    that no image has any share of says nothing.
    """
    codes, counts = np.unique(y, return_inverse=True, return_counts=True)[1:]
    order = np.argsort(codes, kind="stable")
    joint = np.add.reduceat(shares[order], np.concatenate([[0], np.cumsum(counts)[:-1]]), axis=0)
    mass = joint.sum(axis=0)
    given = np.divide(joint, mass, out=np.zeros_like(joint), where=mass > 0)
    return float(np.log(np.einsum("iz,iz->i", shares, given[codes])).mean())


def source_shares(features: FeatureSet, rows: np.ndarray) -> np.ndarray:
    """Return the probabilities of the source classes by the network's own classifier: rows (n,) -> (n, Z) float64.

    Of the features, without a look at the images. Raises FitError where the classifier is not a linear one, or not at
    hand, or the layer that it takes is not among the features.
    """
    network = open_skeleton(features.recipe.model)
    trunk = open_trunk(network)
    name = _classifier(trunk, network)
    pairs = zip(features.recipe.taps, features.recipe.nodes, strict=True)
    taps = [tap.name for tap, node in pairs if node == trunk.classifier_input]
    if not taps:
        raise FitError("the layer that the network's own classifier takes is not among the features (penultimate)")
    weight, bias = (tensor.double().numpy() for tensor in _weights(_whole_state(features), name))
    return softmax(features.read(taps[0], rows).astype(np.float64) @ weight.T + bias, axis=1)


def _classifier(trunk: Trunk, network: nn.Module) -> str:
    """Name the linear layer that the network ends in."""
    modules = dict(network.named_modules())
    behind = trunk.nodes[trunk.nodes.index(trunk.classifier_input) + 1 :] if trunk.classifier_input else ()
    found = [name for name in behind if isinstance(modules.get(name), nn.Linear)]
    if not found:
        raise FitError("the network does not end in a linear classifier")
    return found[0]


def _weights(state: State, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    weight = state[f"{name}.weight"]
    return weight, state.get(f"{name}.bias", torch.zeros(len(weight)))


def _whole_state(features: FeatureSet) -> State:
    """Find the weights of the whole network among the published ones that are on this machine: those the features had.

    What lies beside the features ends at their deepest layer.
    """
    kind, _, name = features.recipe.model.partition(":")
    kept = read_state(features.weights_path)
    for weights in KINDS[kind].local(name):
        state = open_backbone(BackboneSpec(features.recipe.model, weights)).read()
        if _holds(state, kept):
            return state
    raise FitError("the network's own classifier is not at hand: its weights are none of the published ones here")


def _holds(state: State, kept: State) -> bool:
    """Tell whether weights of a whole network are those of the part that was kept."""
    return all(
        name in state and torch.equal(state[name].float(), value.float())
        for name, value in kept.items()
        if not name.endswith(COUNTER)
    )
