"""thingsvision as its pages show it: its extractor, data set, loader and `save_features`, from its own environment."""

from collections.abc import Iterator
from importlib.metadata import version

import torch
from thingsvision import get_extractor
from thingsvision.utils.data import DataLoader, ImageDataset
from thingsvision.utils.storing import save_features

from benchmarks.extract.rivals.common import BATCH, Clock, options

MODULES = {"resnet18": "avgpool", "resnet50": "avgpool", "mobilenet_v2": "classifier.0", "squeezenet1_1": "features"}
"""What it hooks. It cannot pool: of SqueezeNet it has to keep the whole map."""


class Watched(DataLoader):
    """Its loader, which tells when a batch is done: when the next one is asked for."""

    def get_batches(self, dataset: object) -> Iterator[torch.Tensor]:
        """Yield the batches."""
        for batch in super().get_batches(dataset):
            yield batch
            CLOCK.tick(len(batch))


CLOCK = Clock()


def main() -> None:
    """Extract."""
    asked = options(__doc__)
    extractor = get_extractor(asked.model, pretrained=False, device="cpu", source="torchvision", model_path=asked.state)
    transform = extractor.get_transformations()
    dataset = ImageDataset(root=str(asked.folder), out_path=str(asked.out), backend="pt", transforms=transform)
    batches = Watched(dataset=dataset, batch_size=BATCH, backend="pt")
    rows = extractor.extract_features(batches, MODULES[asked.model], flatten_acts=True, output_type="ndarray")
    save_features(rows, out_path=str(asked.out), file_format="npy")
    CLOCK.say(version=version("thingsvision"), torch=torch.__version__)


if __name__ == "__main__":
    main()
