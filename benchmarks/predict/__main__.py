"""How fast `predict` is beside `extract` on the same photos, and what exported programs are worth.

    python -m benchmarks.predict [NAME...] [--quick] [--write]

Each NAME is one measurement. `--write` puts the figures into `benchmarks/predict.json`, and from there into
`benchmarks/predict.md`. `--quick` takes one network, one round and few photos. Weights and photos are those of
$OFFSHELF_DATA (default ../shared/data); where they are not there, the measurements are skipped, and say so.
"""

import sys

from benchmarks.predict.exported import exported
from benchmarks.predict.speed import speed
from benchmarks.suite import Suite

SUITE = Suite(
    name="predict",
    about=(__doc__ or "").splitlines()[0],
    title="What users take away, measured",
    lead="Runs on hymenoptera (244 images for training, 153 for the test): frozen networks and a logistic head.",
    packages=("onnx", "onnxruntime", "torch", "torchvision"),
    measurements={"speed": speed, "export": exported},
)

if __name__ == "__main__":
    sys.exit(SUITE.main())
