"""Precision over recall, as few numbers as a small picture needs."""

from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor

STEPS = 100
"""Precision is kept at recalls of 0, 1/100, …, as far as they are reached."""
CLASSES = 12
"""Classes that are kept, at most."""


def most_frequent(counts: Int[Tensor, " classes"]) -> list[int]:
    """The classes that occur, the most frequent first, as many as are kept."""
    ranked: list[int] = counts.argsort(descending=True, stable=True)[:CLASSES].tolist()
    return [c for c in ranked if counts[c]]


def rounded(precision: Sequence[float]) -> list[float]:
    """To three digits."""
    return [round(value, 3) for value in precision]
