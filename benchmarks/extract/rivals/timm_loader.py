"""timm as its pages show it: `create_model(num_classes=0)`, the model's own transform, a DataLoader; random weights."""

import numpy as np
import timm
import torch
from torch.utils.data import DataLoader

from benchmarks.extract.rivals.common import BATCH, Clock, options, photos
from benchmarks.extract.rivals.naive import Photos

NAMES = {"resnet18": "resnet18", "resnet50": "resnet50", "mobilenet_v2": "mobilenetv2_100"}


def main() -> None:
    """Extract; the state dict is not looked at."""
    asked = options(__doc__)
    torch.manual_seed(0)
    network = timm.create_model(NAMES[asked.model], num_classes=0).eval()
    config = timm.data.resolve_model_data_config(network)
    dataset = Photos(photos(asked.folder), timm.data.create_transform(**config, is_training=False))
    rows, clock = [], Clock()
    with torch.no_grad():
        for batch in DataLoader(dataset, batch_size=BATCH, num_workers=asked.workers):
            rows.append(network(batch).numpy())
            clock.tick(len(batch))
    np.save(asked.out / "features.npy", np.concatenate(rows))
    clock.say(version=timm.__version__, input_size=config["input_size"])


if __name__ == "__main__":
    main()
