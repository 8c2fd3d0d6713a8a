"""The best-scoring template of letKD at each location, drawn over test images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.reporting.results import Arm

STEP = 1.06
"""Distance from one image to the next, in widths of an image."""
GOLDEN_ANGLE = 137.508
"""Degrees of hue from one template to the next: templates of close numbers differ in colour."""

TemplateGrid = list[list[int]]
"""The number of the best template at each location, row by row; negative if unknown."""


@dataclass(frozen=True)
class Cells:
    """The coloured cells over an image of side 1: position, cell size, one path per colour."""

    x: float
    y: float
    across: float
    down: float
    paths: list[tuple[str, str]]


@dataclass(frozen=True)
class TemplateMap:
    """One layer of one arm: images, below them the templates of the student, then of the teacher.

    Attributes:
        title: Title of the chart.
        caption: How to read it.
        images: PNG files in base64.
        rows: Number of rows.
        cells: Cells over all images but those of the first row.
    """

    title: str
    caption: str
    images: list[str]
    rows: int
    cells: list[Cells]

    @property
    def width(self) -> float:
        """Width of the drawing, in widths of an image."""
        return _extent(len(self.images))

    @property
    def height(self) -> float:
        """Height of the drawing, in widths of an image."""
        return _extent(self.rows)

    @property
    def step(self) -> float:
        """Distance from one image to the next."""
        return STEP


def template_maps(arms: Sequence[Arm]) -> Iterator[TemplateMap]:
    """Yield one chart for each layer of each arm that has templates, of its first seed."""
    for arm in arms:
        for stored in arm.diagnostics("templates")[:1]:
            for layer, best in stored["places"].items():
                title = f"Templates: {arm.name}, {layer} layer"
                grids = [best["student"], *([best["teacher"]] if best["teacher"] else [])]
                cells = [
                    _cells(grid, column, row)
                    for row, by_image in enumerate(grids, 1)
                    for column, grid in enumerate(by_image)
                ]
                rows = 1 + len(grids)
                yield TemplateMap(title, _caption(best), stored["images"], rows, cells)


def _caption(best: dict[str, Any]) -> str:
    hint = (
        "Good: colours that stay on one part of the object. Colours scattered over the background "
        "mean that templates were not learned: train longer, or use fewer words."
    )
    what = "A template is a pattern that the layer of letkd looks for."
    if best["teacher"] is None:
        return f"{what} Drawn: the student's best-scoring one at each location, by colour. {hint}"
    return (
        f"{what} Middle row: the student's best-scoring one at each location. Bottom row: the "
        "teacher's most likely one. Equal colours are equal templates, as at "
        f"{100 * best['agreement']:.0f} % of the locations. {hint}"
    )


def _cells(grid: TemplateGrid, column: int, row: int) -> Cells:
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


def _extent(count: int) -> float:
    return round(count * STEP - (STEP - 1), 4)
