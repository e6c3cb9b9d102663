"""Taps: cutting a network at named layers, so that one pass computes what they need and nothing more.

A network is traced by torchvision's tracer, whose node names are the layer names; one that cannot be traced is watched
through hooks instead, its layers being its modules. Either way the pool of a tap runs at the very moment the layer's
output exists: an in-place activation or sum that comes later cannot change a row, and the map is freed early.
"""

import logging

from torch import nn

from extract.taps.graph import GraphTrunk
from extract.taps.hooks import HookTrunk
from extract.taps.trunk import Cut, Node, Trunk, stage_ends

__all__ = ["Cut", "GraphTrunk", "HookTrunk", "Node", "Trunk", "open_trunk", "stage_ends"]

log = logging.getLogger(__name__)


def open_trunk(network: nn.Module) -> Trunk:
    """Trace the network, or watch it through hooks where it cannot be traced."""
    try:
        return GraphTrunk(network)
    except Exception as error:  # tracing runs the network's own code on stand-ins: it can fail in any way
        log.info("not traceable (%s): its modules are watched through hooks", error)
        return HookTrunk(network)
