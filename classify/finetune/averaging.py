"""Averages of weights, along a training (EMA) or of its start and end (WiSE-FT), and BatchNorm's statistics anew.

Numbers that only count, as `num_batches_tracked` does, are copied and never averaged.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from classify.finetune.network import MOVING, Network, norms
from extract.backbones.weights import State
from extract.errors import FitError, OptionError

LARGEST_DECAY = 0.9999
"""Of timm's ModelEmaV3: at power 3/4 the decay gets there after 215,000 steps."""
RE_ESTIMATED = ("recalibrate", MOVING)
"""The modes of BatchNorm in which its statistics may be estimated anew."""


class Ema:
    """The exponential moving average of a network's weights over its steps.

    Its decay grows with the steps t = 0, 1, ...: min(0.9999, 1 - (1 + t)^-power), as in timm's ModelEmaV3, so that the
    first step's weights are taken as they are, and the start soon forgotten: power 3/4 suits short trainings.
    """

    def __init__(self, network: Network, power: float) -> None:
        self._network, self._power = network, power
        self._average = network.state()
        self.step = 0

    @property
    def decay(self) -> float:
        """The share of the average that the next step leaves."""
        return min(LARGEST_DECAY, 1 - (1 + self.step) ** -self._power)

    def update(self) -> None:
        """Take in the weights after a step."""
        live = self._network.live()
        floats = [name for name, value in live.items() if value.is_floating_point()]
        average = get_ema_multi_avg_fn(self.decay)
        average([self._average[name] for name in floats], [live[name] for name in floats], self.step)
        for name in live.keys() - set(floats):
            self._average[name].copy_(live[name])
        self.step += 1

    def state(self) -> State:
        """Return a copy of the average, as `Network.state` returns weights."""
        return {name: value.clone() for name, value in self._average.items()}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have the network compute with the average inside, and go on with its own weights afterwards."""
        own = self._network.state()
        self._network.load(self._average)
        try:
            yield
        finally:
            self._network.load(own)

    def state_dict(self) -> dict[str, int | State]:
        """Return what a checkpoint keeps: the step, and a copy of the average."""
        return {"step": self.step, "average": self.state()}

    def load_state_dict(self, kept: dict[str, int | State]) -> None:
        """Go on from what `state_dict` returned."""
        step, average = kept["step"], kept["average"]
        if not isinstance(step, int) or not isinstance(average, dict) or average.keys() != self._average.keys():
            raise FitError("no average of this network's weights", where="fine-tuning", remedy="Train from the start")
        self.step = step
        for name, value in self._average.items():
            value.copy_(average[name])


def interpolate(start: State, end: State, share: float) -> State:
    """Mix the weights of two states, (1 - share) start + share end, as WiSE-FT does (Wortsman et al. 2022).

    Counts are those of the end. Where BatchNorm's statistics moved, they fit neither of the mixed weights: estimate
    them anew (`recalibrate`). FitError where names or shapes differ.
    """
    if not 0 <= share <= 1:
        raise OptionError(f"a share of {share} of the end", remedy="Take 0 to 1")
    strange = sorted(start.keys() ^ end.keys())
    strange += [name for name in start if name in end and start[name].shape != end[name].shape]
    if strange:
        said = f"the weights are of two different networks: {strange[0]} differs"
        raise FitError(said, where="fine-tuning", remedy="Mix the start and the end of one training")
    return {name: _mixed(value, end[name], share) for name, value in start.items()}


def _mixed(start: Tensor, end: Tensor, share: float) -> Tensor:
    return torch.lerp(start, end.to(start.device), share) if start.is_floating_point() else end.clone()


def recalibrate(network: Network, batches: Iterable[Tensor]) -> None:
    """Estimate the statistics of BatchNorm in the tail from one pass over pixels or maps, as the network takes them.

    Mean and variance are those of the batches, averaged by their images: for batches of one size what `momentum=None`
    gives. Dropout is off and the modes are afterwards what they were. A batch of one image has no variance, and is
    passed over; FitError where no other is left, or where the mode of BatchNorm says that it stays as it is.
    """
    found = list(norms(network.tail).values())
    if network.bn not in RE_ESTIMATED:
        said = f"the statistics of BatchNorm are kept as they are (bn={network.bn})"
        raise FitError(said, where="fine-tuning", remedy="Take --bn recalibrate, or --bn train")
    was_training, momenta = network.training, [norm.momentum for norm in found]
    network.eval()
    try:
        _estimate(network, found, batches)
    finally:
        for norm, momentum in zip(found, momenta, strict=True):
            norm.momentum = momentum
        network.train(was_training)


def _estimate(network: Network, found: Sequence[_BatchNorm], batches: Iterable[Tensor]) -> None:
    """Let only the BatchNorms learn, each batch with the weight that its images have among those seen."""
    for norm in found:
        norm.reset_running_stats()
        norm.train()
    seen = 0
    for x in batches:
        if len(x) < 2:
            continue
        seen += len(x)
        for norm in found:
            norm.momentum = len(x) / seen
        with torch.no_grad():
            network.features(x)
    if found and not seen:
        said = "no batch of two images or more to estimate the statistics of BatchNorm from"
        raise FitError(said, where="fine-tuning", remedy="Take --bn frozen, or more images")
