"""The architecture of the built-in backbone: a CIFAR-style residual network (He et al. 2016, section 4.2), widened."""

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, conv1x1, conv3x3

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Of CIFAR-10's training pixels on the scale 0..1, per channel."""


class CifarResNet(nn.Module):
    """A residual network for 32 x 32 images: (N, 3, 32, 32) float32 -> logits (N, num_classes).

    Three stages of `depth` basic blocks with `width`, 2 `width` and 4 `width` channels at strides 1, 2 and 2. Its
    layers carry the names of torchvision's ResNet (`layer1`, `layer2`, `layer3`, `avgpool`, `fc`).
    """

    def __init__(self, *, width: int = 32, depth: int = 2, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = conv3x3(3, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(width, width, depth, stride=1)
        self.layer2 = _stage(width, 2 * width, depth, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, depth, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 32, 32) -> logits (N, num_classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


def _stage(in_channels: int, channels: int, depth: int, *, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or in_channels != channels:
        shortcut = nn.Sequential(conv1x1(in_channels, channels, stride), nn.BatchNorm2d(channels))
    first = BasicBlock(in_channels, channels, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(depth - 1)))
