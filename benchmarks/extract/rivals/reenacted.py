"""The loop of thingsvision 2.7.3 re-enacted, for where the package does not install.

An in-process loader that stacks transformed images, the whole network with a hook that clones, `torch.cat`, `np.save`.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from benchmarks.extract.rivals.common import BATCH, Clock, options, photos
from benchmarks.extract.rivals.naive import Photos

MODULES = {"resnet18": "avgpool", "resnet50": "avgpool", "mobilenet_v2": "classifier.0", "squeezenet1_1": "features"}


def main() -> None:
    """Extract."""
    asked = options(__doc__)
    network = get_model(asked.model, weights=None).eval()
    network.load_state_dict(torch.load(asked.state))
    dataset = Photos(photos(asked.folder), get_model_weights(asked.model).IMAGENET1K_V1.transforms())
    kept: dict[str, Tensor] = {}

    def keep(module: nn.Module, given: object, output: Tensor) -> None:
        kept["rows"] = output.clone().detach()

    network.get_submodule(MODULES[asked.model]).register_forward_hook(keep)
    rows, clock = [], Clock()
    with torch.no_grad():
        for start in range(0, len(dataset), BATCH):
            batch = torch.stack([dataset[i] for i in range(start, min(start + BATCH, len(dataset)))])
            network(batch)
            rows.append(kept["rows"].flatten(1))
            clock.tick(len(batch))
    np.save(asked.out / "features.npy", torch.cat(rows).numpy())
    clock.say(version="re-enacted")


if __name__ == "__main__":
    main()
