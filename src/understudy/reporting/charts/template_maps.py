"""Which of letKD's templates wins where, drawn over test images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from understudy.reporting.results import Arm

STEP = 1.06
"""From one image to the next, in widths of an image."""
GOLDEN_ANGLE = 137.508
"""Degrees of hue from one template to the next, which keeps neighbours in number apart."""

Grid = list[list[int]]


@dataclass(frozen=True)
class Cells:
    """The templates over one image of side 1: where it stands, and a path in each colour."""

    x: float
    y: float
    across: float
    down: float
    paths: list[tuple[str, str]]


@dataclass(frozen=True)
class TemplateMap:
    """One place of one arm: a row of images, below it the student's templates, then the teacher's.

    Attributes:
        title: Of the picture.
        words: What to look for.
        images: In base64, as PNG.
        rows: How many rows there are.
        cells: Over all images but those of the first row.
    """

    title: str
    words: str
    images: list[str]
    rows: int
    cells: list[Cells]

    @property
    def width(self) -> float:
        """Of the drawing, in widths of an image."""
        return _room(len(self.images))

    @property
    def height(self) -> float:
        """Of the drawing, in widths of an image."""
        return _room(self.rows)

    @property
    def step(self) -> float:
        """From one image to the next."""
        return STEP


def template_maps(arms: Sequence[Arm]) -> list[TemplateMap]:
    """One picture for every place of every arm that has templates, of its first seed."""
    found = []
    for arm in arms:
        kept = [run.diagnostics["templates"] for run in arm.runs if run.diagnostics]
        if not kept or not kept[0]:
            continue
        for place, won in kept[0]["places"].items():
            sides = [won["student"], *([won["teacher"]] if won["teacher"] else [])]
            cells = [
                _cells(grid, column, row)
                for row, side in enumerate(sides, 1)
                for column, grid in enumerate(side)
            ]
            title = f"Templates: {arm.name}, {place} place"
            found.append(TemplateMap(title, _words(won), kept[0]["images"], 1 + len(sides), cells))
    return found


def _words(won: dict[str, Any]) -> str:
    hint = "look for colours that keep to one part of the object."
    if won["teacher"] is None:
        return f"The student's best template at every location, one colour for each; {hint}"
    return (
        "The student's best template at every location (middle row) and the teacher's likeliest "
        "(below), equal in colour where they are the same, at "
        f"{100 * won['agreement']:.0f} % of the locations; {hint}"
    )


def _cells(grid: Grid, column: int, row: int) -> Cells:
    paths: dict[int, str] = {}
    for y, line in enumerate(grid):
        for x, template in enumerate(line):
            if template >= 0:
                paths[template] = paths.get(template, "") + f"M{x} {y}h1v1h-1z"
    return Cells(
        round(column * STEP, 4),
        round(row * STEP, 4),
        round(1 / len(grid[0]), 5),
        round(1 / len(grid), 5),
        [(_colour(template), path) for template, path in sorted(paths.items())],
    )


def _colour(template: int) -> str:
    return f"hsl({template * GOLDEN_ANGLE % 360:.0f} 75% {(45, 60, 35)[template % 3]}%)"


def _room(count: int) -> float:
    return round(count * STEP - (STEP - 1), 4)
