"""What each of several processes does that train a network together, whoever has started them and joined them."""

from contextlib import nullcontext
from dataclasses import replace

import torch

from classify.finetune.log import Log
from classify.finetune.network import Network
from classify.finetune.order import Desk, Order
from classify.finetune.ranks import Ranks
from classify.finetune.search import Searched
from classify.finetune.site import Site
from extract.backbones import read_state
from extract.errors import OffshelfError
from extract.parts import open_parts
from extract.progress import Silent
from extract.store.reader import FeatureSet


def work(desk: Desk, device: str) -> None:
    """Carry out the order on a device, as one of the group, and leave the answer; an error of ours is one, too.

    Raises it nevertheless: the others wait for this process, and have to be ended.
    """
    if desk.answered:  # by an error, after which the group was started again
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(device)  # where what processes tell each other goes through
    ranks = Ranks.here()
    try:
        with desk.telling() if ranks.first else nullcontext(Log(Silent())) as log:
            found, folders = _done(desk.order(), device, log)
    except OffshelfError as error:
        desk.fail(error)
        raise
    if ranks.first:
        desk.answer(found, folders)


def _done(order: Order, device: str, log: Log) -> tuple[Searched, set]:
    here = replace(order.device, name=device)
    with order.shown.opened(here.torch, order.workers) as examples:
        site = Site(examples, here, log, order.shown.features.parent)
        found = site.settle(network_of(order), order.job, searching=order.searching)
    return found, site.folders


def network_of(order: Order) -> Network:
    """Build the network of an order, with the weights that it starts from."""
    features = FeatureSet(order.shown.features)
    parts = open_parts(features.recipe, read_state(features.weights_path), tap=order.tap, until=order.until)
    network = Network(parts, order.n_classes, features.recipe.preprocessing, bn=order.job.plan.bn)
    network.load(order.start)
    return network
