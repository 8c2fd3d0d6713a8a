"""Some test images with what is in them, as every network sees it: boxes, or classes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from understudy.reporting.results import METHOD_INKS, Arm, Results

ROOM = (50.0, 15.0)
"""What a name over an image may take, in percent of its width and height."""
DECIDED = 0.5
"""Probability from which a class is said to be present."""

Row = list[float]
"""A box: left, top, right and bottom in pixels, class, score; or a class and its probability."""


@dataclass(frozen=True)
class Label:
    """Where the name of a box stands, in percent: at its left or right edge, above it or inside."""

    side: Literal["left", "right"]
    across: float
    down: float
    above: bool

    def covers(self, other: "Label") -> bool:
        """Whether both need the same room."""
        away = (abs(a - b) for a, b in zip(self._corner, other._corner, strict=True))
        return all(distance < room for distance, room in zip(away, ROOM, strict=True))

    @property
    def _corner(self) -> tuple[float, float]:
        left = self.across if self.side == "left" else 100 - self.across - ROOM[0]
        return left, self.down - ROOM[1] if self.above else self.down


@dataclass(frozen=True)
class Box:
    """A box in an image, in pixels; its label is None where it would cover another."""

    left: float
    top: float
    width: float
    height: float
    ink: str
    text: str
    label: Label | None
    faint: bool
    """A difficult object or a crowd, which nobody has to find."""


@dataclass(frozen=True)
class Word:
    """A class that an image shows, or is said to show."""

    text: str
    probability: float | None
    kind: Literal["present", "right", "missed", "wrong", "close"]
    """In an image; or said to be, rightly; not said to be; said to be, wrongly; neither."""


@dataclass(frozen=True)
class View:
    """One image as one network sees it, or as it is."""

    name: str
    ink: str
    boxes: list[Box] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)


@dataclass(frozen=True)
class Scene:
    """One image, a JPEG in base64, with its size in pixels before it was reduced."""

    picture: str
    width: int
    height: int
    views: list[View]


@dataclass(frozen=True)
class Scenes:
    """All images; the legend says which class has which ink, if there are boxes."""

    scenes: list[Scene]
    legend: list[tuple[str, str]]
    others: list[str]
    """Arms that are not drawn, as they saw other images."""

    @property
    def boxes(self) -> bool:
        """Whether there are boxes; else there are classes alone."""
        return any(view.boxes for scene in self.scenes for view in scene.views)

    @property
    def repeat(self) -> bool:
        """Whether there are more classes than inks."""
        return len(self.legend) > METHOD_INKS


def scenes(results: Results) -> Scenes | None:
    """The images that the first seed of each arm kept; None if there are none."""
    kept = {arm.name: found for arm in results.arms if (found := _kept(arm))}
    if not kept:
        return None
    first = next(iter(kept.values()))
    arms = [
        a for a in results.arms if a.name in kept and _pictures(kept[a.name]) == _pictures(first)
    ]
    names = _Names(results.classes, first)
    drawn = [
        Scene(
            image["picture"],
            image["width"],
            image["height"],
            list(_views(names, [(arm, kept[arm.name][place]) for arm in arms])),
        )
        for place, image in enumerate(first)
    ]
    others = [name for name in kept if name not in {arm.name for arm in arms}]
    return Scenes(drawn, names.legend, others)


class _Names:
    """What classes are called, and their inks: each its own as long as there are enough."""

    def __init__(self, classes: Sequence[str], images: Sequence[dict[str, Any]]) -> None:
        self._classes = classes
        rows = [row for image in images for row in image["truth"] if isinstance(row, list)]
        shown = sorted({int(row[4]) for row in rows})
        self._inks = {c: f"c{place % METHOD_INKS}" for place, c in enumerate(shown)}

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Name and ink of every class that one of the images shows."""
        return [(self.of(c), ink) for c, ink in self._inks.items()]

    def of(self, c: int) -> str:
        """The name of a class; its number where nobody knows the name."""
        return self._classes[c] if c < len(self._classes) else f"class {c}"

    def ink(self, c: int) -> str:
        """The ink of a class; grey if none of the images shows it."""
        return self._inks.get(c, "control")


def _kept(arm: Arm) -> list[dict[str, Any]]:
    found = (run.diagnostics.get("scenes") for run in arm.runs)
    return next((images for images in found if images), [])


def _pictures(images: Sequence[dict[str, Any]]) -> list[str]:
    return [image["picture"] for image in images]


def _views(names: _Names, seen: Sequence[tuple[Arm, dict[str, Any]]]) -> Iterator[View]:
    """Truth, the teacher, if all arms have the same one, then the arms."""
    _, first = seen[0]
    teacher = first["teacher"]
    yield _view(names, "truth", "muted", first, None)
    if teacher is not None and all(image["teacher"] == teacher for _, image in seen):
        yield _view(names, "teacher", "teacher", first, teacher)
    for arm, image in seen:
        yield _view(names, arm.name, arm.ink, image, image["student"])


def _view(
    names: _Names, name: str, ink: str, image: dict[str, Any], rows: list[Row] | None
) -> View:
    """What a network says of an image; without one, what is true."""
    truth = image["truth"]
    if isinstance(truth[0], list):
        return View(name, ink, boxes=list(_boxes(names, image, rows)))
    if rows is None:
        return View(name, ink, words=[Word(names.of(c), None, "present") for c in truth])
    return View(name, ink, words=[_word(names, int(c), p, truth) for c, p in rows])


def _boxes(names: _Names, image: dict[str, Any], rows: list[Row] | None) -> Iterator[Box]:
    taken: list[Label] = []
    for left, top, right, bottom, c, score in image["truth"] if rows is None else rows:
        name, label = names.of(int(c)), _label(image, left, top, right)
        free = not any(label.covers(other) for other in taken)
        taken += [label] if free else []
        yield Box(
            left,
            top,
            round(right - left, 1),
            round(bottom - top, 1),
            names.ink(int(c)),
            name if rows is None else f"{name} {score:.2f}",
            label if free else None,
            faint=rows is None and not score,
        )


def _label(image: dict[str, Any], left: float, top: float, right: float) -> Label:
    """Towards the middle of the image, so that no name is cut off at its edges."""
    ends = 100 * left / image["width"], 100 - 100 * right / image["width"]
    down = round(100 * top / image["height"], 1)
    side: Literal["left", "right"] = "left" if ends[0] <= ends[1] else "right"
    return Label(side, round(max(min(ends), 0), 1), down, above=down >= ROOM[1])


def _word(names: _Names, c: int, probability: float, truth: list[int]) -> Word:
    said = probability >= DECIDED
    if c in truth:
        return Word(names.of(c), probability, "right" if said else "missed")
    return Word(names.of(c), probability, "wrong" if said else "close")
