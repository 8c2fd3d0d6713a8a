"""A small network; without batch normalisation, how a batch is split does not change its loss."""

from torch import Tensor, nn


class PlainCNN(nn.Module):
    def __init__(self, num_classes: int, width: int, dropout: float, norm: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU())
        if norm:
            self.stem.append(nn.BatchNorm2d(width))
        self.stage1 = nn.Sequential(nn.Conv2d(width, width, 3, stride=2, padding=1), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU())
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(2 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.drop(self.pool(self.stage2(self.stage1(self.stem(images))))))


def factory(
    num_classes: int = 10, width: int = 8, dropout: float = 0.0, norm: bool = False
) -> PlainCNN:
    return PlainCNN(num_classes, width, dropout, norm)
