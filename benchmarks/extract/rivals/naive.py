"""The script that everybody writes: Pillow, the weights' transforms, a DataLoader, fp32, `np.save`."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.models import get_model_weights

from benchmarks.extract.rivals.common import BATCH, Clock, headless, options, photos


class Photos(Dataset[Tensor]):
    """Photos as the network takes them."""

    def __init__(self, paths: Sequence[Path], transform: Callable[[Image.Image], Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


def main() -> None:
    """Extract."""
    asked = options(__doc__)
    network = headless(asked.model, asked.state).to(asked.device)
    dataset = Photos(photos(asked.folder), get_model_weights(asked.model).IMAGENET1K_V1.transforms())
    rows, clock = [], Clock()
    with torch.no_grad():
        for batch in DataLoader(dataset, batch_size=BATCH, num_workers=asked.workers):
            rows.append(network(batch.to(asked.device)).cpu().numpy())
            clock.tick(len(batch))
    np.save(asked.out / "features.npy", np.concatenate(rows))
    clock.say()


if __name__ == "__main__":
    main()
