"""Drawn images of six shapes with their boxes, for demonstrations and tests: no file is needed.

Every image of 96 × 96 pixels shows one to four shapes (circle, square, triangle, star, cross, ring)
of any colour, turned by any angle, on a cloudy ground. Image i of a split is a pure function of i.
`root` may say how many training images there are; a third as many are drawn for the test.
"""

import math
from collections.abc import Callable
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision import tv_tensors

from understudy.data.source import Source, short_digest
from understudy.errors import DataError

SIDE = 96
"""Of the images, in pixels."""
_FINE = 3
"""Drawn so many times as large and then reduced, which makes smooth edges."""
_COUNT = 600
_TRIES = 20

Point = tuple[float, float]
Generator = np.random.Generator


def _polygon(angles: int, depth: float) -> Callable[[float, float], list[Point]]:
    """Corners of a regular polygon; every second one at `depth` of the radius makes a star."""

    def corners(radius: float, turn: float) -> list[Point]:
        steps = [turn + math.pi * k / angles for k in range(2 * angles)]
        lengths = [radius if k % 2 == 0 else radius * depth for k in range(2 * angles)]
        return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(lengths, steps, strict=True)]

    return corners


def _circle(share: float) -> Callable[[float, float], list[Point]]:
    def corners(radius: float, turn: float) -> list[Point]:
        steps = [2 * math.pi * k / 72 for k in range(72)]
        return [(share * radius * math.cos(a), share * radius * math.sin(a)) for a in steps]

    return corners


_OUTLINES: dict[str, Callable[[float, float], list[Point]]] = {
    "circle": _circle(1.0),
    "square": _polygon(4, math.sqrt(0.5)),
    "triangle": _polygon(3, 0.5),
    "star": _polygon(5, 0.42),
    "cross": _polygon(4, 0.35),
    "ring": _circle(1.0),
}
CLASSES = tuple(_OUTLINES)


def load(
    root: str, split: Literal["train", "test"], *, unreadable: Literal["skip", "fail"] = "skip"
) -> Source:
    """The drawn images of one split; all of them are readable.

    Raises:
        DataError: `root` is neither empty nor a number of images.
    """
    if root and not (root.isdecimal() and int(root) > 2):
        raise DataError(
            f"data.root is {root!r}, but shapes are drawn: leave it out, or give the number of "
            f"training images (default: {_COUNT})."
        )
    count = int(root or _COUNT)
    return Shapes(count if split == "train" else count // 3, first=0 if split == "train" else 10**9)


@final
class Shapes(Source):
    """So many drawn images, from number `first` on."""

    def __init__(self, count: int, *, first: int) -> None:
        drawn = [_drawn(first + i) for i in range(count)]
        self.pixels: UInt8[Tensor, "images 3 side side"] = torch.stack([x for x, *_ in drawn])
        self._boxes = [boxes for _, boxes, _ in drawn]
        self._kinds = [kinds for *_, kinds in drawn]
        self.classes, self.size, self.skipped = CLASSES, SIDE, ()
        self.labels = torch.zeros(count, len(CLASSES), dtype=torch.int64)
        for row, kinds in zip(self.labels, self._kinds, strict=True):
            row[kinds] = 1

    def image(self, i: int) -> UInt8[Tensor, "3 side side"]:
        """Image number `i`."""
        return self.pixels[i]

    def target(self, i: int) -> dict[str, Any]:
        """Boxes and classes of image number `i`."""
        boxes, none = self._boxes[i], torch.zeros(len(self._boxes[i]), dtype=torch.bool)
        return {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(SIDE, SIDE)),
            "labels": self._kinds[i],
            "difficult": none,
            "crowd": none,
            "areas": (boxes[:, 2:] - boxes[:, :2]).prod(1),
        }

    @cached_property
    def images_digest(self) -> str:
        """Sixteen hex digits of the pixels."""
        return sha256(self.pixels.numpy().data).hexdigest()[:16]

    @property
    def targets_digest(self) -> str:
        """Sixteen hex digits of boxes and classes."""
        return short_digest([x.tolist() for x in (*self._boxes, *self._kinds)])


def _drawn(number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels, boxes and classes of one image."""
    draw = np.random.default_rng(number)
    image = _ground(draw)
    placed: list[tuple[float, float, float]] = []
    boxes, kinds = [], []
    for _ in range(int(draw.integers(1, 5))):
        place = _free(draw, placed)
        if place is None:
            continue
        placed.append(place)
        kind = int(draw.integers(len(CLASSES)))
        boxes.append(_put(image, draw, CLASSES[kind], place))
        kinds.append(kind)
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous()
    return pixels, torch.tensor(boxes, dtype=torch.float32), torch.tensor(kinds)


def _ground(draw: Generator) -> Image.Image:
    """Coarse noise, mostly grey, smoothly enlarged."""
    coarse = draw.integers(70, 170, (6, 6, 1)) + draw.integers(-30, 31, (6, 6, 3))
    small = Image.fromarray(coarse.astype(np.uint8))
    return small.resize((SIDE * _FINE,) * 2, Image.Resampling.BICUBIC)


def _free(
    draw: Generator, placed: list[tuple[float, float, float]]
) -> tuple[float, float, float] | None:
    """Centre and radius of a shape that hides none of the others; None if there is no room."""
    for _ in range(_TRIES):
        radius = draw.uniform(9, 22)
        x, y = draw.uniform(radius, SIDE - radius, 2)
        if all(math.hypot(x - a, y - b) > 0.9 * (radius + r) for a, b, r in placed):
            return float(x), float(y), float(radius)
    return None


def _put(
    image: Image.Image, draw: Generator, name: str, place: tuple[float, float, float]
) -> list[float]:
    """Draw a shape; its box."""
    x, y, radius = place
    outline = _OUTLINES[name](radius, draw.uniform(0, 2 * math.pi))
    points = [(x + a, y + b) for a, b in outline]
    colour = tuple(int(c) for c in draw.integers(0, 256, 3))
    edge = (0, 0, 0) if sum(colour) > 382 else (255, 255, 255)
    pen = ImageDraw.Draw(image)
    xs, ys = zip(*points, strict=True)
    if name == "ring":
        corners = [_FINE * v for v in (min(xs), min(ys), max(xs), max(ys))]
        pen.ellipse(corners, outline=colour, width=int(0.4 * radius * _FINE))
    else:
        pen.polygon([(_FINE * a, _FINE * b) for a, b in points], colour, edge, _FINE)
    return [max(min(xs), 0), max(min(ys), 0), min(max(xs), SIDE), min(max(ys), SIDE)]
