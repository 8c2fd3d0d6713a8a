"""Scenes drawn for tests: coloured rectangles and discs on grey, every one an object with its box.

A detector can tell them apart within a few steps, and every image has another size.
"""

from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor
from torchvision import tv_tensors

from understudy.data.source import Source, short_digest

CLASSES = ("square", "disc", "bar")
COLOURS = torch.tensor([[220, 60, 50], [40, 160, 90], [60, 90, 220]], dtype=torch.uint8)


@final
class Scenes(Source):
    """Some scenes; every fifth is empty, and the last object of every fourth is difficult."""

    pixels = None
    size = None
    skipped = ()

    def __init__(self, count: int, *, seed: int) -> None:
        self.classes = CLASSES
        generator = torch.Generator().manual_seed(seed)
        self._drawn = [_scene(i, generator) for i in range(count)]
        self.labels = torch.zeros(count, len(CLASSES), dtype=torch.long)
        for row, (_, target) in zip(self.labels, self._drawn, strict=True):
            row[target["labels"]] = 1

    def image(self, i: int) -> Tensor:
        return self._drawn[i][0]

    def target(self, i: int) -> dict[str, Any]:
        return dict(self._drawn[i][1])

    @cached_property
    def images_digest(self) -> str:
        return short_digest([int(image.sum()) for image, _ in self._drawn])


def _scene(i: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
    height, width = (64 + 8 * torch.randint(4, (2,), generator=generator)).tolist()
    image = torch.randint(90, 120, (3, height, width), generator=generator, dtype=torch.uint8)
    count = 0 if i % 5 == 4 else 1 + i % 3
    labels = torch.randint(3, (count,), generator=generator)
    boxes = []
    for label in labels.tolist():
        side = int(torch.randint(18, 32, (1,), generator=generator))
        down, across = (side, side) if label < 2 else (side // 2, side)
        y = int(torch.randint(height - down, (1,), generator=generator))
        x = int(torch.randint(width - across, (1,), generator=generator))
        image[:, y : y + down, x : x + across] = torch.where(
            _inside(label, down, across),
            COLOURS[label].view(3, 1, 1),
            image[:, y : y + down, x : x + across],
        )
        boxes.append([x, y, x + across, y + down])
    found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    difficult = torch.zeros(count, dtype=torch.bool)
    difficult[-1:] = i % 4 == 3 and count > 1
    return image, {
        "boxes": tv_tensors.BoundingBoxes(found, format="XYXY", canvas_size=(height, width)),
        "labels": labels,
        "difficult": difficult,
        "crowd": torch.zeros(count, dtype=torch.bool),
        "areas": (found[:, 2:] - found[:, :2]).prod(1),
    }


def _inside(label: int, down: int, across: int) -> Tensor:
    """Where in its box a shape is: everywhere but for the disc."""
    y = torch.linspace(-1, 1, down).view(-1, 1)
    x = torch.linspace(-1, 1, across)
    return (x**2 + y**2 < 1) if label == 1 else torch.ones(down, across, dtype=torch.bool)
