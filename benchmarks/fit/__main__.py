"""Fitting beside scikit-learn: the same features, the same folds, in one run.

    python -m benchmarks.fit [NAME...] [--quick] [--write]

Each NAME is one measurement. `--write` puts the figures into `benchmarks/fit.json`, and from there into
`benchmarks/fit.md`. `--quick` takes one round and the smallest size.
"""

import sys

from benchmarks.fit.logistic import logistic, logistic_large
from benchmarks.fit.ridge import ridge
from benchmarks.fit.scale import scale
from benchmarks.fit.whole import whole
from benchmarks.suite import Suite

LEAD = """\
Everyone gets the same features and the same folds, in interleaved rounds (A B C A B C): the median, and in brackets the
least and the most. A ratio is of the same round. Where others took more than a tenth of the machine, whether a goal is
met is not told."""

SUITE = Suite(
    name="fit",
    about=(__doc__ or "").splitlines()[0],
    title="Fitting, measured",
    lead=LEAD,
    packages=("numpy", "scipy", "scikit-learn"),
    measurements={
        "logistic": logistic,
        "logistic-large": logistic_large,
        "ridge": ridge,
        "whole": whole,
        "scale": scale,
    },
)

if __name__ == "__main__":
    sys.exit(SUITE.main())
