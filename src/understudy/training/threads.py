"""CPU threads of a run: a choice by the size of its student, never by what else the machine does.

The number of threads decides how a sum is cut into parts, and so the last digits of a gradient.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from understudy.errors import RecipeError
from understudy.models.base import Wrapped
from understudy.models.cost import macs
from understudy.training import hardware

LOGGER = logging.getLogger("understudy")

ThreadChoice = int | Literal["auto"] | None
"""A number, `auto` for a choice by the size of the student, or None for torch's own choice."""

SMALL = 500_000_000
"""Multiply-accumulate operations of a student on one view, up to which it is small.

One thread trains it, and further cores train further students. The students of the CIFAR papers
have 7 to 180 million, a ResNet-18 on views of 224 pixels 1,800 million.
"""


def is_small(student: Wrapped) -> bool:
    """Return True if a student is small, so that one thread is best for each of several runs."""
    return macs(student) <= SMALL


def by_size(student: Wrapped) -> int:
    """Return the threads that train a student: one if it is small, otherwise one for each core."""
    return 1 if is_small(student) else hardware.cores()


def of_user() -> int | None:
    """Return the number of the environment variable `OMP_NUM_THREADS`; None if it has none."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdigit() and int(first) else None


def choose(choice: ThreadChoice, student: Wrapped, *, before: int | None = None) -> int:
    """Return the number of threads of a run on the CPU.

    Args:
        choice: A number is taken. `auto` and None give way to `OMP_NUM_THREADS`, and to `before`.
        student: Network to be trained.
        before: Threads that a run has begun with, if it is continued.

    Raises:
        RecipeError: The number is below 1.
    """
    if isinstance(choice, int):
        count = checked(choice)
    elif from_user := of_user():
        count = from_user
    elif before:
        count = before
    else:
        count = by_size(student) if choice == "auto" else torch.get_num_threads()
    if before and count != before:
        LOGGER.warning(
            f"This run began with {in_words(before)} and goes on with {count}: the last digits of "
            f"its results may differ; give --threads {before} to have them exactly."
        )
    return count


def checked(count: int) -> int:
    """Return a number of threads.

    Raises:
        RecipeError: It is below 1.
    """
    if count < 1:
        raise RecipeError(f"--threads cannot be {count}: a run needs at least one thread.")
    return count


def in_words(count: int) -> str:
    """Return a number of threads with its noun."""
    return f"{count} thread{'s' * (count != 1)}"


@contextmanager
def restored() -> Iterator[None]:
    """Give this process its present number of threads back in the end."""
    count = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(count)
