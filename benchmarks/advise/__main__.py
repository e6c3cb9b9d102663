"""What letting `fit` choose how to train loses against the best in hindsight, and what rules of thumb lose.

    python -m benchmarks.advise [NAME...] [--quick] [--write]

Each NAME is one measurement. `--write` puts the figures into `benchmarks/advise.json`, and from there into
`benchmarks/advise.md`. Both measurements take every strategy on every set and size, as `python -m benchmarks.finetune
strategies` runs and keeps them, and one run in which `fit` chooses. Runs are kept in $OFFSHELF_WORK (default
cache/benchmark-finetune), and not made again, nor are those that the JSON of the figures knows; but one in which `fit`
chose is where its budget would now be another by more than a fifth. After $OFFSHELF_SECONDS no new one begins: what is
there makes the tables, and the same command goes on later. `--quick` runs small sizes alone.
"""

import sys

from benchmarks.advise.regret import choices, regret
from benchmarks.suite import Suite

SUITE = Suite(
    name="advise",
    about=(__doc__ or "").splitlines()[0],
    title="The choice of a strategy, measured",
    lead="Real images and real weights; times are of two cores shared with other work, and say little of others.",
    packages=("numpy", "scikit-learn", "torch", "torchvision"),
    measurements={"regret": regret, "choices": choices},
)

if __name__ == "__main__":
    sys.exit(SUITE.main())
