"""Detectors that a test can afford, and a batch of noise with boxes for them."""

from dataclasses import replace
from typing import Any

import torch

from understudy.batch import Batch, Objects
from understudy.models import detection
from understudy.models.detection import Detector

CLASSES = 3
SIDE = 64
OPTIONS: dict[str, dict[str, Any]] = {
    "fasterrcnn": {
        "min_size": SIDE,
        "max_size": 96,
        "channels": 32,
        "box_batch_size_per_image": 32,
        "rpn_pre_nms_top_n_train": 200,
        "rpn_pre_nms_top_n_test": 200,
    },
    "fcos": {"min_size": SIDE, "max_size": 96, "channels": 64},
    "retinanet": {"min_size": SIDE, "max_size": 96, "channels": 64},
    "ssd": {"size": SIDE, "extra": [32, 32]},
    "ssdlite": {"size": SIDE, "extra": [32, 32]},
}
FAMILIES = sorted(OPTIONS)
"""Every family, with options that make it small."""


def detector(family: str, backbone: str, *, seed: int = 0, **options: Any) -> Detector:
    """A detector of a family, untrained."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        given = {**OPTIONS[family], "backbone": backbone, **options}
        return detection.find(family, num_classes=CLASSES, options=given)


def scene(images: int = 2) -> Batch:
    """Images of different sizes with three objects each, one of them difficult."""
    draw = torch.Generator().manual_seed(1)
    corners = [torch.rand(3, 2, generator=draw) * 24 for _ in range(images)]
    boxes = [torch.cat([x, x + 8 + torch.rand(3, 2, generator=draw) * 16], 1) for x in corners]
    labels = [torch.randint(CLASSES, (3,), generator=draw) for _ in range(images)]
    objects = Objects(
        torch.tensor([[SIDE - 8 * i, SIDE] for i in range(images)]),
        tuple(boxes),
        tuple(labels),
        tuple(torch.tensor([False, False, True]) for _ in range(images)),
        tuple(torch.zeros(3, dtype=torch.bool) for _ in range(images)),
        tuple(torch.full((3,), 100.0) for _ in range(images)),
    )
    pixels = torch.rand(images, 3, SIDE, SIDE, generator=draw)
    return replace(Batch.of(pixels), objects=objects)
