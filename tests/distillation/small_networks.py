"""Small networks for loops of one's own."""

import torch
from torch import Tensor, nn


def network(channels: int = 3, classes: int = 4, *, seed: int = 0) -> nn.Sequential:
    """Build a network of two convolutions that takes images of any size."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, 2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, 2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, classes),
    )


def pair(channels: int = 3, classes: int = 4) -> tuple[nn.Sequential, nn.Sequential]:
    """Build a student and another network as its teacher."""
    return network(channels, classes, seed=1), network(channels, classes, seed=2)


def images(*shape: int) -> Tensor:
    """Draw images as a loader normalises them: far outside of [0, 1]."""
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(5))
