"""The script that everybody writes to train the last stage: ImageFolder, a DataLoader, the rest frozen, in eval mode.

Prints the seconds of each epoch as JSON.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import models
from torchvision.datasets import ImageFolder
from torchvision.models import get_model_weights
from torchvision.transforms import v2


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="photos, in class folders")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--trains", default="layer4", help="the module that trains, with a new fc")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


def network(name: str, trains: str, n_classes: int) -> nn.Module:
    """Return the network, frozen but for one module and a new classifier."""
    found = models.get_model(name, weights=None).requires_grad_(False).eval()
    found.fc = nn.Linear(found.fc.in_features, n_classes)
    found.get_submodule(trains).requires_grad_(True)
    return found


def main() -> None:
    """Train, and say how long each epoch took."""
    asked = options()
    preset = get_model_weights(asked.model).DEFAULT.transforms()
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(preset.crop_size, scale=(0.5, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(preset.mean, preset.std),
        ]
    )
    data = ImageFolder(str(asked.folder), transform)
    batches = DataLoader(data, asked.batch, shuffle=True, num_workers=asked.workers, persistent_workers=True)
    net = network(asked.model, asked.trains, len(data.classes))
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=1e-3, momentum=0.9)
    seconds = []
    for _ in range(asked.epochs):
        began = time.perf_counter()
        for images, labels in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"epochs_s": seconds, "images": len(data)}))


if __name__ == "__main__":
    main()
