"""Train the built-in backbone on CIFAR-10: `python -m extract.backbones.builtin.train DATA`.

DATA is a folder with train/ and test/ of class folders. The weights and a JSON record of how they came about are
written beside this file. Plain cross-entropy on purpose: label smoothing and its like raise the accuracy on the
pretraining set and lower that of the frozen features (Kornblith et al. 2021, "Why do better loss functions lead to less
transferable features?").
"""

import hashlib
import json
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from extract.backbones.builtin.network import MEAN, STD, CifarResNet

HERE = Path(__file__).parent
PAD_PX = 4


@dataclass(frozen=True)
class Training:
    """What decides the weights, apart from the data and the library versions."""

    epochs: int = 15
    batch_size: int = 128
    peak_lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.2
    seed: int = 0


@click.command(context_settings={"show_default": True})
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--epochs", default=Training.epochs, help="Passes over the training images.")
@click.option("--seed", default=Training.seed, help="Seed of the start weights, the order and the augmentation.")
@click.option(
    "--out", default=HERE / "cifar_resnet14.safetensors", type=click.Path(path_type=Path), help="Weights file."
)
def main(data: Path, epochs: int, seed: int, out: Path) -> None:
    """Train on DATA/train, measure once on DATA/test, write the weights and their record."""
    training = Training(epochs=epochs, seed=seed)
    train, test = load_split(data / "train"), load_split(data / "test")
    began = time.monotonic()
    network = fit(training, *train)
    seconds = time.monotonic() - began
    state = {name: rounded(value) for name, value in network.state_dict().items()}
    network.load_state_dict(state)
    save_file(state, out)
    record = {
        "architecture": "CifarResNet(width=32, depth=2)",
        "command": "python -m extract.backbones.builtin.train DATA",
        "training": asdict(training),
        "train_images": len(train[1]),
        "train_pixels_sha256": hashlib.sha256(train[0].numpy().tobytes()).hexdigest(),
        "test_images": len(test[1]),
        "test_accuracy": accuracy(network, *test),
        "parameters": sum(p.numel() for p in network.parameters()),
        "weights_sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "seconds": round(seconds),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    out.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    click.echo(json.dumps(record, indent=2))


def load_split(folder: Path) -> tuple[Tensor, Tensor]:
    """Read class folders, sorted: images (N, 3, 32, 32) uint8 and labels (N,) int64."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = [(path, label) for label, name in enumerate(classes) for path in sorted((folder / name).iterdir())]
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in files])
    labels = torch.tensor([label for _, label in files])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels


def fit(training: Training, images: Tensor, labels: Tensor) -> CifarResNet:
    """Stochastic gradient descent with a warm-up and a cosine: the trained network, in train mode."""
    generator = torch.Generator().manual_seed(training.seed)
    torch.manual_seed(training.seed)
    network = CifarResNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=training.momentum, weight_decay=training.weight_decay, nesterov=True
    )
    steps = training.epochs * (len(labels) // training.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.peak_lr, total_steps=steps, pct_start=training.warmup, cycle_momentum=False
    )
    for epoch in range(training.epochs):
        began, losses = time.monotonic(), []
        for rows in torch.randperm(len(labels), generator=generator).split(training.batch_size):
            if len(rows) < training.batch_size:
                continue
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(normalise(augment(images[rows], generator)))
            loss = nn.functional.cross_entropy(logits.float(), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        click.echo(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}, {time.monotonic() - began:.0f} s", err=True)
    return network


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by up to PAD_PX pixels over black and mirror half of them: (N, 3, H, W) uint8 -> the same."""
    n, channels, height, width = images.shape
    padded = nn.functional.pad(images, (PAD_PX,) * 4)
    top, left = torch.randint(0, 2 * PAD_PX + 1, (2, n), generator=generator)
    columns = torch.arange(width).expand(n, width)
    columns = torch.where(torch.rand(n, 1, generator=generator) < 0.5, columns.flip(1), columns) + left[:, None]
    rows = torch.arange(height) + top[:, None]
    index = torch.arange(n)[:, None, None, None], torch.arange(channels)[None, :, None, None]
    return padded[*index, rows[:, None, :, None], columns[:, None, None, :]]


def normalise(images: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 -> float32 in channels-last order, standardised per channel."""
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return ((images / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def rounded(value: Tensor) -> Tensor:
    """Half precision for the big kernels, so that the file stays under 2 MB; the rest as it is."""
    return value.half().contiguous() if value.dim() > 1 else value.contiguous()


@torch.inference_mode()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of right answers in eval mode and float32."""
    network.eval()
    right = [
        (network(normalise(x)).argmax(1) == y).sum() for x, y in zip(images.split(500), labels.split(500), strict=True)
    ]
    return float(sum(right) / len(labels))


if __name__ == "__main__":
    main()
