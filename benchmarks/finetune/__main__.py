"""What fine-tuning brings over the probe, strategy by strategy, and how much faster an epoch on cached maps is.

    python -m benchmarks.finetune [NAME...] [--quick] [--write]

Each NAME is one measurement. `--write` puts the figures into `benchmarks/finetune.json`, and from there into
`benchmarks/finetune.md`. `--quick` takes one round and the small sizes. The runs of `strategies` are kept in
$OFFSHELF_WORK (default cache/benchmark-finetune), and not made again, nor are those that `benchmarks/finetune.json`
knows. After $OFFSHELF_SECONDS no new one begins: what is there makes the table, and the same command goes on later.
"""

import sys

from benchmarks.finetune.table import strategies
from benchmarks.finetune.tail import tail
from benchmarks.suite import Suite

SUITE = Suite(
    name="finetune",
    about=(__doc__ or "").splitlines()[0],
    title="Fine-tuning, measured",
    lead="Real images, and real weights where it says so; times are of two cores and say little of others.",
    packages=("numpy", "scikit-learn", "torch", "torchvision"),
    measurements={"tail": tail, "strategies": strategies},
)

if __name__ == "__main__":
    sys.exit(SUITE.main())
