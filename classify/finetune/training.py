"""A training as far as it has come: its steps, its looks at the validation part, and all that a checkpoint keeps."""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from classify.finetune.averaging import Ema
from classify.finetune.examples import Batch, Examples
from classify.finetune.gradients import Gradients, Targets, draw_seed, losses
from classify.finetune.job import Device, Job, Outcome, Row
from classify.finetune.log import Log
from classify.finetune.network import MOVING, Network, norms
from classify.finetune.plan import Plan
from classify.finetune.ranks import Ranks
from classify.finetune.schedule import rate_at, unfrozen_at
from extract.devices import full_fp32
from extract.errors import TrainingError

CHECK_STEPS = 10
"""Losses are looked at every so many steps: a GPU has to come to rest for it."""


class DivergedError(TrainingError):
    """The loss is no number."""


def _sgd(groups: list[dict[str, Any]], plan: Plan) -> Optimizer:
    return SGD(groups, momentum=plan.momentum, nesterov=plan.nesterov)


def _adamw(groups: list[dict[str, Any]], _: Plan) -> Optimizer:
    return AdamW(groups)


OPTIMIZERS = {"sgd": _sgd, "adamw": _adamw}


class Training:
    """A training as far as it has come: `best` holds the weights of the lowest validation loss."""

    def __init__(self, network: Network, examples: Examples, job: Job, device: Device, log: Log) -> None:
        self.network, self.examples, self.job, self.device, self.log = network, examples, job, device, log
        self.ranks = Ranks.here()
        self.moving = self._moving_statistics()
        self.optimizer = OPTIMIZERS[job.plan.optimizer](network.groups(job.setting, job.plan), job.plan)
        self.ema = Ema(network, job.plan.ema) if job.plan.ema else None
        self.gradients = Gradients(network, job, device, log)
        self.step, self.opened = 0, None
        self.losses: list[Tensor] = []
        self.history: list[Row] = []
        self.best: dict[str, Any] = {"loss": float("inf"), "accuracy": 0.0, "step": 0, "state": {}}
        self.began = time.perf_counter()

    @property
    def due(self) -> bool:
        """Whether the validation part is to be looked at after this step."""
        return self.step % self.job.plan.evaluate_every == 0 or self.step == self.job.plan.steps

    @property
    def finished(self) -> bool:
        """Whether nothing more can come of it: no step is left, or it has not got better for long enough.

        Looks do not count while blocks are closed that are to train yet.
        """
        plan, n_blocks = self.job.plan, len(self.network.blocks)
        looks = [row["step"] for row in self.history if unfrozen_at(row["step"], plan, n_blocks) is None]
        missed = sum(step > self.best["step"] for step in looks)
        return self.step == plan.steps or (missed >= plan.patience and not plan.fresh)

    @property
    def seconds(self) -> float:
        """How long it has taken, in all processes that worked on it."""
        return time.perf_counter() - self.began

    def came_to(self, stop_at: int) -> bool:
        """Tell whether it is finished, or has come to a look from step `stop_at` on."""
        return self.finished or (self.due and self.step >= stop_at)

    @contextmanager
    def batches(self) -> Iterator[Iterator[Batch]]:
        """Read what the next steps see, without end, and let go of it afterwards."""
        plan, job = self.job.plan, self.job
        drawn = self.examples.drawn(
            job.train,
            batch_size=plan.batch_size,
            seed=job.seed,
            start=self.step,
            augment=plan.augment,
            ranks=self.ranks,
        )
        try:
            yield drawn
        finally:
            if isinstance(drawn, Generator):
                drawn.close()

    def take(self, batch: Batch) -> None:
        """Take one step."""
        self._set_pace()
        self.network.train()
        self.losses.append(self.gradients(*self._moved(batch), draw_seed(self.job.seed, self.step)))
        if self.job.plan.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.job.plan.clip_norm)
        self.optimizer.step()
        self.ranks.mean(self.moving)
        if self.ema:
            self.ema.update()
        self.step += 1
        self.log.advance(1)
        if self.step % CHECK_STEPS == 0:
            self._check(self.losses[-CHECK_STEPS:])

    def _set_pace(self) -> None:
        """Set the learning rates of this step, and open the blocks that train in it."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate_at(self.step, self.job.plan)
        opened = unfrozen_at(self.step, self.job.plan, len(self.network.blocks))
        if opened != self.opened:
            self.network.unfreeze(opened)
            self.gradients.join()
            self.opened = opened

    def _moved(self, batch: Batch) -> tuple[Tensor, Tensor]:
        x, y = (each.to(self.device.torch, non_blocking=True) for each in (batch.x, batch.y))
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x, y

    def look(self) -> None:
        """Look at the validation part: in fp32 and eval mode, with averaged weights where there are any."""
        self._check(self.losses)
        with self.ema.applied() if self.ema else nullcontext():
            found = self._evaluate()
            first = self.job.plan.fresh and self.best["step"] == 0
            if first or found["loss"] < self.best["loss"]:
                state = {name: value.cpu() for name, value in self.network.state().items()}
                self.best = {**found, "step": self.step, "state": state}
        loss = torch.stack(self.losses).double().mean().item() if self.losses else None
        self._note_look(loss, found)
        self.losses = []

    @torch.no_grad()
    def _evaluate(self) -> dict[str, float]:
        """Return the mean log-loss of the validation part in nats, its classes weighed as in training, and accuracy."""
        self.network.eval()
        weights, total = self.gradients.weights, torch.zeros(3, dtype=torch.float64, device=self.device.torch)
        with full_fp32():
            for batch in self.examples.plain(self.ranks.part(self.job.val), batch_size=self.gradients.part):
                x, y = self._moved(batch)
                logits = self.network(x)
                right = (logits.argmax(1) == y).sum()
                total += torch.stack([losses(logits, Targets(y, y), weights).double().sum(), weights[y].sum(), right])
        loss, weight, right = self.ranks.sum(total).tolist()
        self._check([total])
        return {"loss": loss / weight, "accuracy": right / len(self.job.val)}

    def _moving_statistics(self) -> list[Tensor]:
        """Return the statistics of BatchNorm that follow the batches, (C,) each; each process's own but on GPUs.

        Their mean over the processes is kept: that of the means is the mean of the whole batch, and that of the
        variances lacks what the parts of a batch differ by.
        """
        if self.network.bn != MOVING or self.ranks.alone:
            return []
        self.ranks.synchronise(self.network.tail, self.device.torch)
        self.network.unfreeze(None)  # what stays in eval mode is chosen among the modules that are there now
        found = norms(self.network.tail).values()
        return [value for norm in found for value in norm.buffers() if value.is_floating_point()]

    def _note_look(self, loss: float | None, found: dict[str, float]) -> None:
        rate = self.job.setting.rate * rate_at(min(self.step, self.job.plan.steps - 1), self.job.plan)
        row: Row = {"step": self.step, "rate": rate, "loss": loss, "val_loss": found["loss"]}
        self.history.append({**row, "val_accuracy": found["accuracy"], "seconds": self.seconds})
        self.log.look(self.job.name, self.history[-1])
        trained = "" if loss is None else f"loss {loss:.3f}, "
        self.log.show(f"{trained}validation {found['loss']:.3f}, {found['accuracy']:.1%} right")

    def _check(self, numbers: list[Tensor]) -> None:
        if numbers and not torch.stack(numbers).isfinite().all():
            where = f"{self.job.name}, by step {self.step}, rate {self.job.setting.rate:g}"
            remedy = "Take a lower --rate" + (" or --precision fp32" if self.device.precision != "fp32" else "")
            raise DivergedError("the loss is no number any more", where=where, remedy=remedy)

    def as_dict(self) -> dict[str, Any]:
        """Return all that the rest of it depends on; what only further steps need, unless it is finished."""
        live = {
            "network": self.network.live(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
        }
        said = {"step": self.step, "history": self.history, "best": self.best, "seconds": self.seconds}
        return {**said, "losses": self.losses, "part": self.gradients.part, "live": None if self.finished else live}

    def resume(self, saved: dict[str, Any] | None) -> None:
        """Go on from what `as_dict` returned, or begin."""
        self.log.start(self.job.name, self.job.plan.steps)
        if saved is None:
            return
        self.step, self.history, self.best = saved["step"], saved["history"], saved["best"]
        self.losses = [loss.to(self.device.torch) for loss in saved["losses"]]
        self.gradients.part = saved["part"]
        self.began -= saved["seconds"]
        if live := saved["live"]:
            self.network.load(live["network"])
            self.optimizer.load_state_dict(live["optimizer"])
            if self.ema:
                self.ema.load_state_dict(live["ema"])
        for row in self.history:
            self.log.look(self.job.name, row)
        self.log.advance(self.step)

    def outcome(self, *, diverged: bool = False) -> Outcome:
        """Say what has come of it so far."""
        best = self.best
        val = {"loss": best["loss"], "accuracy": best["accuracy"]}
        ended = diverged or self.finished
        return Outcome(best["state"], best["step"], self.step, val, self.history, self.seconds, ended, diverged)
