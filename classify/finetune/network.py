"""The network as it is trained: a trunk that cannot change, a tail that may, and a linear head.

What does not train is frozen in all that it has: its parameters, the statistics of BatchNorm, which move without any
gradient (pytorch#86590), and dropout. As every epoch begins with `train()`, that is where it is made so, each time.
"""

from collections.abc import Set

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from classify.finetune.plan import Plan, Setting
from classify.tuning import BN_MODES
from extract.backbones import digest
from extract.backbones.weights import State
from extract.errors import FitError, OptionError, unknown
from extract.forward import freeze, normalise
from extract.parts import TAIL, TRUNK, Parts
from extract.recipe import Preprocessing

FIXED_AFFINE = ("frozen", "recalibrate")
"""The modes of BatchNorm in which its own weights and biases do not train."""
MOVING = "train"
"""The mode in which its statistics follow the batches."""


class Network(nn.Module):
    """A trunk in eval mode without gradients, a tail, and a head: logits (N, C) float32. It is born in eval mode.

    `bn` says what BatchNorm does in the tail: `frozen` (nothing of it changes), `affine` (its weights and biases
    train), `train` (its statistics move too), `recalibrate` (as `frozen`; `averaging.recalibrate` estimates the
    statistics anew before). All blocks train until `unfreeze` says otherwise. The head begins with zeros, as BiT's
    (Kolesnikov et al. 2020), unless it is set.
    """

    def __init__(self, parts: Parts, n_classes: int, preset: Preprocessing, *, bn: str) -> None:
        super().__init__()
        if bn not in BN_MODES:
            unknown("mode of BatchNorm", bn, BN_MODES, OptionError)
        self.bn, self.preset, self.blocks = bn, preset, parts.blocks
        self.trunk = freeze(parts.trunk.module) if parts.trunk else None
        self.tail = parts.tail.module
        self.head = nn.Linear(parts.width, n_classes)
        self.parts = parts  # their `run` may be the module itself, which must not be registered twice
        self._held: list[nn.Module] = []
        named = sorted(dict(self.tail.named_parameters()))
        assert sorted(name for block in self.blocks for name in block) == named  # noqa: S101 the parts are our own
        self.zero_head()
        self.unfreeze(None)
        self.eval()

    def inputs(self, x: Tensor) -> Tensor:
        """Return what the tail takes, in memory of its own, since layers may work in place.

        uint8 pixels (N, 3, S, S) are normalised, and go through the trunk where there is one; numbers of another type
        are what the tail takes already: maps (N, C, H, W), or normalised images where there is no trunk. Both may be
        mixed with each other (mixup). -> float32, without gradients.
        """
        with torch.no_grad():
            if x.dtype != torch.uint8:
                return x.float() if x.dtype != torch.float32 else x.clone()
            images = normalise(x, self.preset)
            if self.parts.trunk is None:
                return images
            self.check_trunk()
            return self.parts.trunk.run(images)[TRUNK]

    def features(self, x: Tensor) -> Tensor:
        """Compute the rows that the head takes: pixels or maps, as `inputs` takes them -> (N, D) float32."""
        return self._rows(self.inputs(x))

    def forward(self, x: Tensor) -> Tensor:
        """Score each class: pixels or maps, as `inputs` takes them -> logits (N, C), float32 under autocast too."""
        maps = self.inputs(
            x
        )  # called here and not by `features`: where a compiler parts the graph, nothing has gradients
        rows = self._rows(maps)
        with torch.autocast(rows.device.type, enabled=False):
            return self.head(rows)

    def _rows(self, maps: Tensor) -> Tensor:
        return self.parts.tail.run(maps)[TAIL].float()

    def train(self, mode: bool = True) -> "Network":
        """Go into training mode or out of it; what is frozen stays in eval mode."""
        super().train(mode)
        for module in self._held:
            module.eval()
        return self

    def check_trunk(self) -> None:
        """Refuse a trunk that could change, whoever has made it so: FitError names the module."""
        if self.trunk is None:
            return
        for name, module in self.trunk.named_modules():
            if module.training or any(value.requires_grad for value in module.parameters(recurse=False)):
                said = f"the trunk could change: {name or 'all of it'} is not frozen"
                raise FitError(said, where="fine-tuning", remedy="Train only what lies above the cut")

    def unfreeze(self, n_blocks: int | None) -> None:
        """Let the top `n_blocks` of the tail and the head train, or all blocks; those below are frozen altogether.

        What is frozen loses its gradients: an optimizer would go on with a gradient of before, or decay the weights.
        """
        n_open = len(self.blocks) if n_blocks is None else min(n_blocks, len(self.blocks))
        opened = {name for block in self.blocks[len(self.blocks) - n_open :] for name in block}
        may_train = opened & self._trainable()
        for name, value in self.tail.named_parameters():
            value.requires_grad_(name in may_train)
            value.grad = value.grad if name in may_train else None
        self._held = self._to_hold(opened)
        self.train(self.training)

    def _to_hold(self, opened: Set[str]) -> list[nn.Module]:
        """List the modules that stay in eval mode while the parameters `opened` are free to train."""
        closed = _closed(self.tail, opened, all_open=len(opened) == sum(map(len, self.blocks)))
        trunk = [] if self.trunk is None else [self.trunk]
        return [*trunk, *closed, *([] if self.bn == MOVING else norms(self.tail).values())]

    def _trainable(self) -> set[str]:
        """Name the parameters of the tail that the mode of BatchNorm lets train."""
        fixed = norms(self.tail) if self.bn in FIXED_AFFINE else {}
        return {name for name, _ in self.tail.named_parameters() if name.rpartition(".")[0] not in fixed}

    def groups(self, setting: Setting, plan: Plan) -> list[dict[str, object]]:
        """Return an optimizer's parameter groups: all that may ever train, by rate and weight decay.

        The rate is multiplied by `layer_decay` for each block from the head on down, the first below it included, and
        by `head_rate` for the head; biases and parameters of one dimension, such as ConvNeXt's scales (C, 1, 1), do not
        decay (both as in timm), nor what is below the head where the plan says so. The rate is also kept as
        `initial_lr`, for schedules.
        """
        found: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, value, rate in self._rated(setting.rate, plan):
            decay = setting.weight_decay if _decays(name, value, plan) else 0.0
            found.setdefault((rate, decay), []).append(value)
        return [
            {"params": values, "lr": rate, "initial_lr": rate, "weight_decay": decay}
            for (rate, decay), values in found.items()
        ]

    def _rated(self, rate: float, plan: Plan) -> list[tuple[str, nn.Parameter, float]]:
        """List name, parameter and learning rate of all that may train, the head first, then block by block down."""
        trainable, parameters = self._trainable(), dict(self.tail.named_parameters())
        rated = [(f"head.{name}", value, rate * plan.head_rate) for name, value in self.head.named_parameters()]
        for depth, block in enumerate(reversed(self.blocks), 1):
            below = rate * plan.layer_decay**depth
            rated += [(f"tail.{name}", parameters[name], below) for name in block if name in trainable]
        return rated

    def live(self) -> State:
        """Return what training changes, tail and head, by name: the very tensors, which the next step writes to."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("trunk.")}

    def state(self) -> State:
        """Return a copy of what training changes, tail and head, by name."""
        return {name: value.clone() for name, value in self.live().items()}

    def load(self, state: State) -> None:
        """Take over what `state` returned; FitError where names or shapes are others. Modes stay as they are."""
        live = self.live()
        strange = sorted(live.keys() ^ state.keys())
        strange += [name for name in live if name in state and live[name].shape != state[name].shape]
        if strange:
            said = f"these are the weights of another network: {strange[0]} differs"
            raise FitError(said, where="fine-tuning", remedy="Train again from the start")
        for name, value in live.items():
            value.copy_(state[name])

    def frozen_digest(self) -> str:
        """Return a SHA-256 over all that no training of this network may change, in hex.

        That is the trunk, the parameters that BatchNorm's mode keeps, and every buffer but the statistics of BatchNorm
        in the mode `train`. Blocks that train later (`unfreeze`) do not count.
        """
        changing = {f"tail.{name}" for name in self._trainable()} | {"head.weight", "head.bias"}
        if self.bn == MOVING:
            for name, norm in norms(self.tail).items():
                changing |= {buffer for buffer, _ in norm.named_buffers(prefix=f"tail.{name}")}
        return digest({name: value for name, value in self.state_dict().items() if name not in changing})

    def zero_head(self) -> None:
        """Begin with a head that says the same of every class."""
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def set_head(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        """Begin with a fitted head: coef (C, D), intercept (C,), finite; FitError where they do not fit."""
        wanted = tuple(self.head.weight.shape)
        if coef.shape != wanted or intercept.shape != wanted[:1]:
            said = f"a head of {coef.shape} and {intercept.shape} for a network of {wanted} and {wanted[:1]}"
            raise FitError(said, where="fine-tuning", remedy="Fit the head on the features of this very layer")
        if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
            raise FitError("a head that is not finite", where="fine-tuning", remedy="Fold it first: head.fold")
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(coef))
            self.head.bias.copy_(torch.from_numpy(intercept))

    def head_arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the head as float64: coef (C, D), intercept (C,)."""
        weight, bias = (value.detach().cpu().double().numpy() for value in (self.head.weight, self.head.bias))
        return weight, bias


def norms(tail: nn.Module) -> dict[str, _BatchNorm]:
    """Return the BatchNorms by name."""
    return {name: module for name, module in tail.named_modules() if isinstance(module, _BatchNorm)}


def _decays(name: str, value: Tensor, plan: Plan) -> bool:
    meant = plan.decay_below_head or name.startswith("head.")
    return meant and value.squeeze().ndim > 1 and not name.endswith(".bias")


def _closed(tail: nn.Module, opened: Set[str], *, all_open: bool) -> list[nn.Module]:
    """List the modules with parameters of which none is open, and those without that stand before the first open one.

    Modules stand in the order in which the network was cut, which is that of execution: dropout below is found by it.
    """
    closed, reached = [], all_open
    for name, module in tail.named_modules():
        own = {value for value, _ in module.named_parameters(prefix=name)}
        direct = {value for value, _ in module.named_parameters(prefix=name, recurse=False)}
        reached = reached or bool(direct & opened)
        if not own & opened and (own or not reached):
            closed.append(module)
    return closed
