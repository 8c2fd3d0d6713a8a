"""A small network; without batch normalisation, how a batch is split does not change its loss."""

import torch
from torch import Tensor, nn


class PlainCNN(nn.Module):
    def __init__(
        self, num_classes: int, width: int, dropout: float, norm: bool, copies: int
    ) -> None:
        super().__init__()
        # Nothing but memory: so many scaled copies of the feature are made, and averaged.
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, copies).unsqueeze(1)) if copies else None
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU())
        if norm:
            self.stem.append(nn.BatchNorm2d(width))
        self.stage1 = nn.Sequential(nn.Conv2d(width, width, 3, stride=2, padding=1), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU())
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(2 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        feature = self.pool(self.stage2(self.stage1(self.stem(images))))
        if self.scale is not None:
            feature = (feature.unsqueeze(1) * self.scale).relu().mean(1)
        return self.fc(self.drop(feature))


def factory(
    num_classes: int = 10,
    width: int = 8,
    dropout: float = 0.0,
    norm: bool = False,
    copies: int = 0,
) -> PlainCNN:
    return PlainCNN(num_classes, width, dropout, norm, copies)
