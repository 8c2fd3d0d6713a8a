"""Size of images: one number for squares, else height and width. Loads no torch."""

from dataclasses import dataclass
from typing import Annotated, Any, final

from understudy.config.limits import Pixels
from understudy.errors import RecipeError


@final
@dataclass(frozen=True)
class NoSquare:
    """Limit of height and width: a square is written as one number, so that it has one form."""

    def __str__(self) -> str:
        return ""

    def check(self, value: Any, path: str) -> None:
        """Refuse two equal sides.

        Raises:
            RecipeError: As above.
        """
        if len(set(value)) == 1:
            raise RecipeError(
                f"'{path}' is {list(value)}: write the side of a square as one number, {value[0]}."
            )


ImageSize = Pixels | Annotated[tuple[Pixels, Pixels], NoSquare()]
"""Side of square images in pixels, or the height and the width of others."""


Size = int | tuple[int, int]
"""The same, once its limits were checked."""


def sides(size: Size) -> tuple[int, int]:
    """Return height and width."""
    return (size, size) if isinstance(size, int) else size


def of_sides(height: int, width: int) -> Size:
    """Return the size of images of a height and a width, as one number for squares."""
    return height if height == width else (height, width)


def in_words(size: Size) -> str:
    """Return a size as text: `224`, or `224 × 160`, the height first."""
    return _joined(size, " × ")


def as_flag(size: Size) -> str:
    """Return a size as a flag takes it: `224`, or `224 160`."""
    return _joined(size, " ")


def as_name(size: Size) -> str:
    """Return a size as part of a file's name: `224`, or `224x160`."""
    return _joined(size, "x")


def _joined(size: Size, between: str) -> str:
    return between.join(map(str, dict.fromkeys(sides(size))))


def pixels(size: Size) -> int:
    """Return the number of pixels."""
    height, width = sides(size)
    return height * width
