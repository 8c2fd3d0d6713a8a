"""Sample test images with the ground truth and each network's answer: boxes, or classes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final

from understudy.reporting.results import METHOD_INKS, Arm, Results

NAME_SIZE = (50.0, 15.0)
"""Room for a class name over an image, in percent of the image's width and height."""
THRESHOLD = 0.5
"""Probability from which a class counts as predicted."""

Row = list[float]
"""A box: left, top, right and bottom in pixels, class, score; or a class and its probability."""


@dataclass(frozen=True)
class NamePosition:
    """Position of a box's name, in percent: distance from one side, and from the top."""

    side: Literal["left", "right"]
    across: float
    down: float
    above: bool

    def overlaps(self, other: "NamePosition") -> bool:
        """Return whether one name would cover the other."""
        away = (abs(a - b) for a, b in zip(self._corner, other._corner, strict=True))
        return all(distance < size for distance, size in zip(away, NAME_SIZE, strict=True))

    @property
    def _corner(self) -> tuple[float, float]:
        left = self.across if self.side == "left" else 100 - self.across - NAME_SIZE[0]
        return left, self.down - NAME_SIZE[1] if self.above else self.down


@dataclass(frozen=True)
class Box:
    """A box in an image, in pixels; its name has no position where it would cover another."""

    left: float
    top: float
    width: float
    height: float
    ink: str
    text: str
    name: NamePosition | None
    ignored: bool
    """True for a difficult object or a crowd, which counts neither as found nor as missed."""


@dataclass(frozen=True)
class ImageClass:
    """A class that an image shows, or to which a network gives a notable probability."""

    text: str
    probability: float | None
    kind: Literal["present", "correct", "missed", "wrong", "close"]
    """Ground truth; predicted and present; not predicted but present; predicted but absent; absent
    and below the threshold."""


@dataclass(frozen=True)
class Tile:
    """One image with the answer of one network, or with the ground truth."""

    name: str
    ink: str
    boxes: list[Box] = field(default_factory=list)
    classes: list[ImageClass] = field(default_factory=list)


@dataclass(frozen=True)
class Sample:
    """One test image, a JPEG in base64, with its size in pixels before it was reduced."""

    picture: str
    width: int
    height: int
    tiles: list[Tile]


@dataclass(frozen=True)
class Samples:
    """All sample images, and the colour of each class if there are boxes."""

    samples: list[Sample]
    legend: list[tuple[str, str]]
    others: list[str]
    """Arms that are not drawn because they were tested on other images."""

    @property
    def boxes(self) -> bool:
        """True for boxes, False for classes of whole images."""
        return any(tile.boxes for sample in self.samples for tile in sample.tiles)

    @property
    def repeat(self) -> bool:
        """True if there are more classes than colours."""
        return len(self.legend) > METHOD_INKS


def samples(results: Results) -> Samples | None:
    """Return the images that the first seed of each arm stored; None if there are none."""
    stored = {arm.name: seeds[0] for arm in results.arms if (seeds := arm.diagnostics("scenes"))}
    if not stored:
        return None
    first = next(iter(stored.values()))
    same = [arm for arm in results.arms if _pictures(stored.get(arm.name, [])) == _pictures(first)]
    legend = _Legend(results, first)
    drawn = [
        Sample(
            image["picture"],
            image["width"],
            image["height"],
            list(_tiles(legend, [(arm, stored[arm.name][number]) for arm in same])),
        )
        for number, image in enumerate(first)
    ]
    others = [name for name in stored if name not in {arm.name for arm in same}]
    return Samples(drawn, legend.rows, others)


class _Legend:
    """Names and colours of the classes; colours repeat if there are more classes."""

    def __init__(self, results: Results, images: Sequence[dict[str, Any]]) -> None:
        self.name = results.class_name
        rows = [row for image in images for row in image["truth"] if isinstance(row, list)]
        classes = sorted({int(row[4]) for row in rows})
        self._inks = {c: f"c{number % METHOD_INKS}" for number, c in enumerate(classes)}

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Name and colour of every class in the ground truth of the images."""
        return [(self.name(c), ink) for c, ink in self._inks.items()]

    def ink(self, c: int) -> str:
        """Return the colour of a class; grey if it is in no ground truth."""
        return self._inks.get(c, "control")


def _pictures(images: Sequence[dict[str, Any]]) -> list[str]:
    return [image["picture"] for image in images]


def _tiles(legend: _Legend, arms: Sequence[tuple[Arm, dict[str, Any]]]) -> Iterator[Tile]:
    """Yield the ground truth, the teacher if all arms have the same one, then the arms."""
    _, first = arms[0]
    teacher = first["teacher"]
    yield _tile(legend, "ground truth", "muted", first, None)
    if teacher is not None and all(image["teacher"] == teacher for _, image in arms):
        yield _tile(legend, "teacher", "teacher", first, teacher)
    for arm, image in arms:
        yield _tile(legend, arm.name, arm.ink, image, image["student"])


def _tile(
    legend: _Legend, name: str, ink: str, image: dict[str, Any], rows: list[Row] | None
) -> Tile:
    """Return the answer of a network; the ground truth without one."""
    truth = image["truth"]
    if isinstance(truth[0], list):
        return Tile(name, ink, boxes=list(_boxes(legend, image, rows)))
    if rows is None:
        return Tile(name, ink, classes=[ImageClass(legend.name(c), None, "present") for c in truth])
    return Tile(name, ink, classes=[_image_class(legend, int(c), p, truth) for c, p in rows])


def _boxes(legend: _Legend, image: dict[str, Any], rows: list[Row] | None) -> Iterator[Box]:
    names = NamePositions(image["width"], image["height"])
    for left, top, right, bottom, c, score in image["truth"] if rows is None else rows:
        text = legend.name(int(c))
        yield Box(
            left,
            top,
            round(right - left, 1),
            round(bottom - top, 1),
            legend.ink(int(c)),
            text if rows is None else f"{text} {score:.2f}",
            names.place(left, top, right),
            ignored=rows is None and not score,
        )


@final
class NamePositions:
    """Positions for the names of the boxes in one image, so that none covers another.

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._taken: list[NamePosition] = []

    def place(self, left: float, top: float, right: float) -> NamePosition | None:
        """Return the next name's position; None where it would cover another.

        It is at the box's side with more room, so that the image cuts no name off.

        Args:
            left: Left side of the box in pixels.
            top: Top of the box in pixels.
            right: Right side of the box in pixels.
        """
        ends = 100 * left / self._width, 100 - 100 * right / self._width
        down = round(100 * top / self._height, 1)
        side: Literal["left", "right"] = "left" if ends[0] <= ends[1] else "right"
        position = NamePosition(side, round(max(min(ends), 0), 1), down, above=down >= NAME_SIZE[1])
        if any(position.overlaps(other) for other in self._taken):
            return None
        self._taken.append(position)
        return position


def _image_class(legend: _Legend, c: int, probability: float, truth: list[int]) -> ImageClass:
    predicted = probability >= THRESHOLD
    if c in truth:
        return ImageClass(legend.name(c), probability, "correct" if predicted else "missed")
    return ImageClass(legend.name(c), probability, "wrong" if predicted else "close")
