"""Every strategy on the shared sets, at several sizes: where each wins, and what it costs."""

from collections.abc import Mapping

from benchmarks.cells.outcomes import Outcome, compare, keep
from benchmarks.cells.runs import STEPS, missing, whole_cells
from benchmarks.cells.sets import Cell, open_workplace
from benchmarks.extract.harness import Figures, Numbers
from classify.tuning import LINEAR, STRATEGIES

NOTE = (
    f"Weights of ImageNet; images of 64 pixels; {STEPS['full']} steps for each, {STEPS['scratch']} from "
    "scratch, three rates searched by successive halving, one seed. Test accuracy in percent, and the paired 95 % "
    "interval of its difference to the probe on the same images; seconds on a machine shared with other work. "
    "Spectrograms: whole speakers are held out, two of six, which is why the intervals are so wide. Hymenoptera is a "
    "subset of the pretraining data: a smoke test. The column of scratch is from before 2026-11-21's "
    "change but for cifar10-10, hymenoptera-50 and -120, and says nothing of it: rates were compared by validation "
    "losses above that of the start, and trainings ended early. As it is now, one rate of 0.03 comes to 85.7 on "
    "mnist-50, where 10.0 stands. The three are no better than chance: weights are kept from where the validation loss "
    "is lowest, which is near the start where so few images train a network."
)


def strategies(quick: bool) -> Figures:
    """Run every strategy on every set and size; what was done before is not done again."""
    found = {cell: outcomes for cell, _, outcomes in whole_cells(open_workplace(), quick)}
    return Figures([row(cell, outcomes) for cell, outcomes in found.items()], NOTE + missing(found))


def row(cell: Cell, found: Mapping[str, Outcome]) -> Numbers:
    """Sum up the probe and every strategy on one cell: -> one row of the table."""
    probe = found[LINEAR]
    sizes = {"train": probe.n_train, "test": len(probe.right), "probe": f"{100 * probe.accuracy:.1f}"}
    return {**cell.head(), **sizes, **{name: said(found[name], probe) for name in STRATEGIES}, **keep(cell.name, found)}


def said(tuned: Outcome, probe: Outcome) -> str:
    """Put one strategy into words: accuracy, the interval of the gain, seconds."""
    gain = compare(tuned, probe)
    low, high = (f"{100 * end:+.1f}" for end in (gain.low, gain.high))
    return f"{100 * tuned.accuracy:.1f} ({low} to {high}), {tuned.seconds:.0f} s"
