"""Labels of a table: the names of their columns, and the classes of whole numbers."""

import logging
from collections.abc import Iterable, Sequence
from functools import cache

from understudy.batch import UNLABELLED

LOGGER = logging.getLogger("understudy")

DENSE = 1000
"""Numbers below this are class numbers, however few of them occur."""

LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class")
"""Columns of numbers or names that are read as labels, the one to be taken first."""


def names_of(numbers: Iterable[int]) -> list[str]:
    """Return the class names of a data set whose labels are these numbers; -1 is no label.

    Class numbers start from 0 and stay what they are, so that they mean the same to a network
    whose classes have no names. Numbers of which less than a tenth occur are ids, such as those of
    products: the classes are the ids that occur, in their order.
    """
    ids = sorted(set(numbers) - {UNLABELLED})
    count = ids[-1] + 1 if ids else 0
    if count <= max(DENSE, 10 * len(ids)):
        if len(ids) > 1 and ids == list(range(1, count)):
            _warn_of_no_zero(count - 1)
        return [str(number) for number in range(count)]
    return [str(number) for number in ids]


def labels_of(numbers: Sequence[int], names: Sequence[str]) -> list[int]:
    """Return the class of each number, by the names of `names_of`."""
    positions = {int(name): i for i, name in enumerate(names)} | {UNLABELLED: UNLABELLED}
    return [positions[number] for number in numbers]


@cache
def _warn_of_no_zero(last: int) -> None:
    """Warn once, not for every split of a data set."""
    LOGGER.warning(
        f"The labels run from 1 to {last}, so that class 0 has no image and a network has one "
        "output too many: number them from 0."
    )
