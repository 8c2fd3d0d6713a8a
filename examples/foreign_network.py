"""A network of your own, named in a recipe as `examples/foreign_network.py:resnet32`.

This is the CIFAR ResNet of karanchahal/distiller, written from a description of its state dict: a
64-channel stem, stages of 16, 32 and 64 channels whose blocks end without a ReLU, a ReLU after each
stage, and a 4 × 4 average pool, so that 64 × 2 × 2 = 256 numbers enter the classifier. Understudy
does not know this network beforehand; it finds the features in a traced forward pass.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3 × 3 convolutions and a shortcut, without a ReLU at the end."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != width:
            conv = nn.Conv2d(before, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return a map with the width of the block."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return y + self.shortcut(x)


class ForeignResNet(nn.Module):
    """Three stages of `blocks` blocks each."""

    def __init__(self, blocks: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = self._stage(blocks, 64, 16, stride=1)
        self.relu1 = nn.ReLU()
        self.layer2 = self._stage(blocks, 16, 32, stride=2)
        self.relu2 = nn.ReLU()
        self.layer3 = self._stage(blocks, 32, 64, stride=2)
        self.relu3 = nn.ReLU()
        self.linear = nn.Linear(256, num_classes)

    @staticmethod
    def _stage(blocks: int, before: int, width: int, stride: int) -> nn.Sequential:
        first = Block(before, width, stride)
        return nn.Sequential(first, *(Block(width, width, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of normalised images."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.relu1(self.layer1(x))
        x = self.relu2(self.layer2(x))
        x = self.relu3(self.layer3(x))
        return self.linear(F.avg_pool2d(x, 4).flatten(1))


def resnet8(num_classes: int = 100) -> ForeignResNet:
    """Build a network of one block per stage: 112,452 parameters at 100 classes."""
    return ForeignResNet(1, num_classes)


def resnet32(num_classes: int = 100) -> ForeignResNet:
    """Build a network of five blocks per stage: 501,316 parameters at 100 classes."""
    return ForeignResNet(5, num_classes)
