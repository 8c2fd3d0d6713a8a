"""Precision over recall, reduced to what a small chart needs."""

from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor

STEPS = 100
"""Precision is stored at recalls of 0, 1/100, …, up to the highest that is reached."""
CLASSES = 12
"""Maximum number of classes that are stored."""


def most_frequent(counts: Int[Tensor, " classes"]) -> list[int]:
    """Return the classes that occur, the most frequent first, and at most `CLASSES`."""
    ranked: list[int] = counts.argsort(descending=True, stable=True)[:CLASSES].tolist()
    return [c for c in ranked if counts[c]]


def rounded(precision: Sequence[float]) -> list[float]:
    """Return the values with three decimals."""
    return [round(value, 3) for value in precision]
