"""How a training went: the loss of the validation part at each look, beside that of the training batches."""

from collections.abc import Sequence
from dataclasses import dataclass

from classify.plots.svg import WIDTH, Axis, Scale, document, frame, path, ticks

LEFT, RIGHT, TOP, BOTTOM, HEIGHT = 64, 24, 36, 56, 300


@dataclass(frozen=True)
class Look:
    """One look: the step, the validation loss, and the mean training loss since the look before; None where unknown."""

    step: int
    val_loss: float
    loss: float | None = None


def descent_plot(looks: Sequence[Look], best_step: int, label: str) -> str:
    """Draw the losses over the steps, in nats, and mark the look whose weights were kept: -> an SVG document."""
    x, y = _axes(looks)
    held = [(x.scale(look.step), y.scale(look.val_loss)) for look in looks]
    seen = [(x.scale(look.step), y.scale(look.loss)) for look in looks if look.loss is not None]
    parts = [frame(x, y), f'<path class="line" d="{path(held)}"/>']
    parts += [f'<path class="ahead dashed" d="{path(seen)}"/>'] if seen else []
    parts += [_dot(look, x, y, best=look.step == best_step) for look in looks]
    return document(HEIGHT, label, "".join(parts))


def _axes(looks: Sequence[Look]) -> tuple[Axis, Axis]:
    losses = [loss for look in looks for loss in (look.val_loss, look.loss) if loss is not None]
    steps, high = max(1, *(look.step for look in looks)), max(1e-6, *losses) * 1.05
    across = [(step, f"{step:,.0f}") for step in ticks(0, steps)]
    up = [(loss, f"{loss:g}") for loss in ticks(0, high)]
    return (
        Axis(Scale(0, steps, LEFT, WIDTH - RIGHT), across, "steps"),
        Axis(Scale(0, high, HEIGHT - BOTTOM, TOP), up, "log-loss (nats)"),
    )


def _dot(look: Look, x: Axis, y: Axis, *, best: bool) -> str:
    said = f"step {look.step:,}: validation loss {look.val_loss:.4f}{', kept' if best else ''}"
    kind, radius = ("best", 6) if best else ("row", 3)
    return (
        f'<g class="{kind}"><title>{said}</title>'
        f'<circle class="dot" cx="{x.scale(look.step)}" cy="{y.scale(look.val_loss)}" r="{radius}"/></g>'
    )
