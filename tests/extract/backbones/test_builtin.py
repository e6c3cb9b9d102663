import hashlib
import json
from pathlib import Path

import torch

from extract.backbones import builtin, open_backbone
from extract.backbones.builtin import train
from extract.backbones.weights import digest
from extract.spec import BackboneSpec

WEIGHTS = Path(builtin.HERE) / "cifar_resnet14.safetensors"
RECORD = json.loads(WEIGHTS.with_suffix(".json").read_text())


def test_the_file_is_the_one_that_was_trained_and_small():
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() == RECORD["weights_sha256"]
    assert WEIGHTS.stat().st_size < 2_000_000


def test_it_opens_like_any_other_backbone():
    backbone = open_backbone(BackboneSpec("builtin"))
    assert backbone.model == "builtin:cifar_resnet14"
    assert backbone.preprocessing.crop_size == 32
    state = backbone.read()
    assert state.keys() == backbone.network.state_dict().keys()
    assert sum(p.numel() for p in backbone.network.parameters()) == RECORD["parameters"]
    assert digest(open_backbone(BackboneSpec("builtin", "none")).read()) != digest(state)


def test_training_learns_and_repeats_itself():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(32) % 2
    images = torch.randint(0, 60, (32, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images[labels == 1] += 150
    training = train.Training(epochs=3, batch_size=8, peak_lr=0.02)
    network = train.fit(training, images, labels)
    assert train.accuracy(network, images, labels) == 1.0
    again = train.fit(training, images, labels)
    assert digest(dict(again.state_dict())) == digest({n: v.contiguous() for n, v in network.state_dict().items()})


def test_augmentation_shifts_and_mirrors_and_nothing_else():
    image = torch.zeros(200, 3, 32, 32, dtype=torch.uint8)
    image[:, :, 16, 10] = 255
    moved = train.augment(image, torch.Generator().manual_seed(0))
    assert moved.shape == image.shape
    assert moved.dtype == torch.uint8
    where = moved[:, 0].flatten(1).argmax(1)
    rows, columns = where // 32, where % 32
    assert int(moved.sum()) == 200 * 3 * 255
    assert rows.min() >= 12
    assert rows.max() <= 20
    assert set(columns.tolist()) <= set(range(6, 15)) | set(range(17, 26))
