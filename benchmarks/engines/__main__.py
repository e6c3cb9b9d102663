"""What `--engine ray` costs against `--engine local`, and what its driver takes for a million shards.

    python -m benchmarks.engines [NAME...] [--quick] [--write]

Each NAME is one measurement. `--write` puts the figures into `benchmarks/engines.json`, and from there into
`benchmarks/engines.md`. `--quick` takes one round and the small sizes.
"""

import sys

from benchmarks.engines.driver import driver
from benchmarks.engines.overhead import engines
from benchmarks.suite import Suite

SUITE = Suite(
    name="engines",
    about=(__doc__ or "").splitlines()[0],
    title="Engines, measured",
    lead="On one machine of two cores without a GPU: overhead and behaviour, and no word on how a cluster scales.",
    packages=("ray", "torch", "torchvision"),
    measurements={"driver": driver, "engines": engines},
)

if __name__ == "__main__":
    sys.exit(SUITE.main())
