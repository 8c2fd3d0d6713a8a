"""Limits of the numbers and texts of recipes and methods, declared in their types. Loads no torch.

A key of a recipe and a hyper-parameter of a method are declared alike, and the declaration is what
is checked, shown in the help, and listed by `understudy show`:

    lr: NonNegative = 0.05
    temperature: Positive = 4.0
    seed: Seed = 0

Beyond that, every number must be finite in 32 bits, and every whole number has at most 32, as
`convert` in `schema.py` checks.
"""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, Protocol, final

from understudy.errors import RecipeError, short

AUTO: Any = "auto"
"""Word in place of a value that depends on the images and networks; see `OrAuto`."""

LARGEST = 1e38
"""Largest number of any key: networks and losses compute in 32 bits, whose largest is 3.4e38."""

LARGEST_WHOLE = 2**32 - 1
"""Largest whole number of any key."""

_LONGEST_NAME = 255
"""Bytes of a file name that file systems take."""

_LONGEST_PATH = 4000
"""Bytes of a path that systems take, less some for the files below it."""


class Limit(Protocol):
    """Limit of a value, as it stands in `Annotated`."""

    def check(self, value: Any, path: str) -> None:
        """Raise `RecipeError` if `value`, which the dotted key `path` has, is not allowed."""


@final
@dataclass(frozen=True)
class Range:
    """Range of a number; its text is `at least 0 and below 1`, or `from 0 to 1`.

    Attributes:
        least: Smallest number allowed.
        most: Largest number allowed.
        above: Number that must be exceeded.
        below: Number that must not be reached.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __str__(self) -> str:
        if self.least is not None and self.most is not None:
            return f"from {_number(self.least)} to {_number(self.most)}"
        words = {
            "at least": self.least,
            "above": self.above,
            "at most": self.most,
            "below": self.below,
        }
        return " and ".join(f"{k} {_number(x)}" for k, x in words.items() if x is not None)

    def check(self, value: Any, path: str) -> None:
        """Refuse a number out of the range, and what is not a number (NaN).

        Raises:
            RecipeError: It is out of the range.
        """
        inside = (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )
        if not inside:
            raise RecipeError(f"'{path}' is {short(value)}; it must be {self}.")


@final
@dataclass(frozen=True)
class AsPath:
    """Text that names a file or folder.

    Attributes:
        below: It must stay below the folder that it is put in: neither absolute nor with `..`.
            Nothing at all stands for a name that is made.
    """

    below: bool = False

    def __str__(self) -> str:
        return ""

    def check(self, value: Any, path: str) -> None:
        """Refuse what no file system takes.

        Raises:
            RecipeError: A character or a length that no path has, or a path that leads upwards.
        """
        parts = PurePath(value).parts
        if any(ord(letter) < 32 for letter in value):
            raise RecipeError(
                f"'{path}' is {short(value)}, which holds a control character: no file can be "
                "called so."
            )
        longest = max((len(part.encode()) for part in parts), default=0)
        if longest > _LONGEST_NAME or len(value.encode()) > _LONGEST_PATH:
            raise RecipeError(
                f"'{path}' is {short(value)}, too long to name a file: at most {_LONGEST_NAME} "
                f"bytes between two slashes and {_LONGEST_PATH} in all."
            )
        upward = PurePath(value).is_absolute() or ".." in parts
        if self.below and value and (not parts or upward):
            raise RecipeError(
                f"'{path}' is {short(value)}, which names no folder below `runs`: give a name, "
                "such as 'mine' or 'digits/mine'."
            )


@final
@dataclass(frozen=True)
class InEpochs:
    """Unit of a number: it counts epochs, so that it shrinks with a training that is made shorter.

    Attributes:
        whole: Only whole epochs have a meaning.
        least: Fewest epochs, however short the training becomes.
    """

    whole: bool = True
    least: int = 0

    def __str__(self) -> str:
        return ""

    def check(self, value: Any, path: str) -> None:
        """Accept every number; what is allowed is said by the limits beside it."""


@final
@dataclass(frozen=True)
class OrAuto:
    """Permission to write `auto` for a value, which `experiment.defaults` then chooses.

    A type with this limit is the one that a chosen value has: whatever trains, evaluates or reads
    images gets recipes in which nothing is `auto` any more.
    """

    def __str__(self) -> str:
        return ""

    def check(self, value: Any, path: str) -> None:
        """Accept every value; what is allowed is said by the limits beside it."""


NonNegative = Annotated[float, Range(least=0)]
"""Number of at least 0."""
Positive = Annotated[float, Range(above=0)]
"""Number above 0."""
Share = Annotated[float, Range(least=0, most=1)]
"""Part of a whole, which may be all of it."""
ShareBelowAll = Annotated[float, Range(least=0, below=1)]
"""Part of a whole, which is never all of it."""
Count = Annotated[int, Range(least=1)]
"""Whole number of things, of which there is at least one."""
Epochs = Annotated[int, Range(least=1), InEpochs(least=1)]
"""Whole number of epochs, of which there is at least one."""
Whole = Annotated[int, Range(least=0)]
"""Whole number of things, of which there may be none."""
Pixels = Annotated[int, Range(least=1, most=16384)]
"""Side of an image."""
Seed = Annotated[int, Range(least=0, most=LARGEST_WHOLE)]
"""Seed of random numbers."""
MixingShape = Annotated[float, Range(least=0, most=1000)]
"""α of Beta(α, α), from which shares of two images are drawn; at 1000 all are about a half."""
PathText = Annotated[str, AsPath()]
"""Path of a file or folder, or a text that contains one."""
RunName = Annotated[str, AsPath(below=True)]
"""Name of an experiment, which its folder gets too."""


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"
