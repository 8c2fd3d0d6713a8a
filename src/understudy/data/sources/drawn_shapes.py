"""Synthetic images of six shapes with their boxes, for demonstrations and tests; needs no files.

Every image of 96 × 96 pixels shows one to four shapes (circle, square, triangle, star, cross, ring)
of random colour and rotation on a cloudy background. Image i of a split is a pure function of i.
`root` may be the number of training images; the test split has a third as many.
"""

import math
from collections.abc import Callable
from functools import cached_property
from hashlib import sha256
from typing import Any, final

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision import tv_tensors

from understudy.data.source import Source, Split, Unreadable, short_digest
from understudy.data.sources._unread_root import unread

SIDE = 96
"""Side of the images in pixels."""
_SUPERSAMPLING = 3
"""Shapes are drawn so many times larger and then reduced, for smooth edges."""
_COUNT = 600
"""Default number of training images."""
_TRIES = 20
"""Attempts to find room for a shape."""

Point = tuple[float, float]
Outline = Callable[[float, float], list[Point]]
"""Maps radius and rotation in radians to the corners of a shape around the origin."""
Generator = np.random.Generator


def _polygon(tips: int, depth: float) -> Outline:
    """Return a polygon whose corners alternate between the radius and its share `depth`: a star.

    With `depth` = cos(π / tips), the inner corners lie on the edges of a regular polygon.
    """

    def corners(radius: float, rotation: float) -> list[Point]:
        angles = [rotation + math.pi * k / tips for k in range(2 * tips)]
        lengths = [radius if k % 2 == 0 else radius * depth for k in range(2 * tips)]
        return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(lengths, angles, strict=True)]

    return corners


def _circle(radius: float, rotation: float) -> list[Point]:
    angles = [2 * math.pi * k / 72 for k in range(72)]
    return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]


_OUTLINES: dict[str, Outline] = {
    "circle": _circle,
    "square": _polygon(4, math.sqrt(0.5)),
    "triangle": _polygon(3, 0.5),
    "star": _polygon(5, 0.42),
    "cross": _polygon(4, 0.35),
    "ring": _circle,
}
CLASSES = tuple(_OUTLINES)


def load(root: str, split: Split, *, unreadable: Unreadable = "skip") -> Source:
    """Draw the images of one split; all of them are readable.

    Raises:
        DataError: `root` is neither empty nor a number of images above 2.
    """
    if root and not (root.isdecimal() and int(root) > 2):
        how_many = f"data.root is their number, above 2 (default: {_COUNT})"
        raise unread(root, "drawn_shapes", f"its images are drawn, and {how_many}")
    count = int(root or _COUNT)
    # Test images have numbers that no training set reaches.
    return Shapes(count if split == "train" else count // 3, first=0 if split == "train" else 10**9)


@final
class Shapes(Source):
    """Drawn images, numbered from `first` on."""

    def __init__(self, count: int, *, first: int) -> None:
        drawn = [_draw_image(first + i) for i in range(count)]
        self.pixels: UInt8[Tensor, "images 3 side side"] = torch.stack([x for x, *_ in drawn])
        self._boxes = [boxes for _, boxes, _ in drawn]
        self._labels = [labels for *_, labels in drawn]
        self.classes, self.size, self.skipped = CLASSES, SIDE, ()
        self.labels = torch.zeros(count, len(CLASSES), dtype=torch.int64)
        for row, labels in zip(self.labels, self._labels, strict=True):
            row[labels] = 1

    def image(self, i: int) -> UInt8[Tensor, "3 side side"]:
        """Return image `i`."""
        return self.pixels[i]

    def target(self, i: int) -> dict[str, Any]:
        """Return boxes, labels and areas of image `i`; no object is difficult or a crowd."""
        boxes, none = self._boxes[i], torch.zeros(len(self._boxes[i]), dtype=torch.bool)
        return {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(SIDE, SIDE)),
            "labels": self._labels[i],
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
        return short_digest([x.tolist() for x in (*self._boxes, *self._labels)])


def _draw_image(number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return pixels, boxes and labels of one image."""
    random = np.random.default_rng(number)
    image = _background(random)
    circles: list[tuple[float, float, float]] = []
    boxes, labels = [], []
    for _ in range(int(random.integers(1, 5))):
        circle = _free_circle(random, circles)
        if circle is None:
            continue
        circles.append(circle)
        label = int(random.integers(len(CLASSES)))
        boxes.append(_draw_shape(image, random, CLASSES[label], circle))
        labels.append(label)
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous()
    return pixels, torch.tensor(boxes, dtype=torch.float32), torch.tensor(labels)


def _background(random: Generator) -> Image.Image:
    """Return coarse noise, mostly grey, smoothly enlarged."""
    coarse = random.integers(70, 170, (6, 6, 1)) + random.integers(-30, 31, (6, 6, 3))
    small = Image.fromarray(coarse.astype(np.uint8))
    return small.resize((SIDE * _SUPERSAMPLING,) * 2, Image.Resampling.BICUBIC)


def _free_circle(
    random: Generator, circles: list[tuple[float, float, float]]
) -> tuple[float, float, float] | None:
    """Draw centre and radius of a shape that hides none of the others; None if there is no room."""
    for _ in range(_TRIES):
        radius = random.uniform(9, 22)
        x, y = random.uniform(radius, SIDE - radius, 2)
        if all(math.hypot(x - a, y - b) > 0.9 * (radius + r) for a, b, r in circles):
            return float(x), float(y), float(radius)
    return None


def _draw_shape(
    image: Image.Image, random: Generator, name: str, circle: tuple[float, float, float]
) -> list[float]:
    """Draw a shape of random colour and rotation into its circle, and return its box."""
    x, y, radius = circle
    outline = _OUTLINES[name](radius, random.uniform(0, 2 * math.pi))
    points = [(x + a, y + b) for a, b in outline]
    colour = tuple(int(c) for c in random.integers(0, 256, 3))
    # A dark edge around bright shapes and a bright one around dark shapes: all stand out.
    edge = (0, 0, 0) if sum(colour) > 382 else (255, 255, 255)
    canvas, scale = ImageDraw.Draw(image), _SUPERSAMPLING
    xs, ys = zip(*points, strict=True)
    if name == "ring":
        corners = [scale * v for v in (min(xs), min(ys), max(xs), max(ys))]
        canvas.ellipse(corners, outline=colour, width=int(0.4 * radius * scale))
    else:
        canvas.polygon([(scale * a, scale * b) for a, b in points], colour, edge, scale)
    return [max(min(xs), 0), max(min(ys), 0), min(max(xs), SIDE), min(max(ys), SIDE)]
