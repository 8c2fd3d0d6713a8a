"""Successive halving: how far trials are trained, and who goes on."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, final

from understudy.experiment.callback import Callback
from understudy.training.signals import ask_to_stop

_SHARE = 3
"""One of how many trials goes on, to as many times the epochs."""

STOPPED = "the search"
"""What stops a run at a rung, in place of a signal."""


def rungs(epochs: int) -> tuple[int, ...]:
    """Return the epochs at which trials are compared: a ninth, a third and all of them.

    All are multiples of the first but the last, so that evaluations in such steps meet them.

    >>> rungs(30), rungs(5), rungs(2)
    ((4, 12, 30), (1, 3, 5), (1, 2))
    """
    first = max(1, math.ceil(epochs / _SHARE**2))
    return tuple(sorted({min(first, epochs), min(first * _SHARE, epochs), epochs}))


def promoted(count: int) -> int:
    """Return how many of a number of trials go on to the next rung: at least one."""
    return math.ceil(count / _SHARE)


def epochs_to_train(trials: int, steps: Sequence[int], *, begun: int = 0) -> int:
    """Return the epochs of all trials together, to the first rung and beyond it.

    Args:
        trials: Number of trials.
        steps: Epochs of the rungs.
        begun: Trials that have reached the first rung, which are not counted up to there.

    >>> epochs_to_train(9, (1, 3, 9)), epochs_to_train(9, (1, 3, 9), begun=9)
    (21, 12)
    """
    total, count = (trials - begun) * steps[0], trials
    for before, step in pairwise(steps):
        count = promoted(count)
        total += count * (step - before)
    return total


@final
class StopsAfter(Callback):
    """Stops a run after an epoch as a signal does: its state is saved, and it can go on exactly.

    Args:
        epoch: Epoch after which it stops.
    """

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def epoch(self, record: dict[str, Any]) -> None:
        """Ask the run to stop where the rung is."""
        if record["epoch"] >= self._epoch:
            ask_to_stop(STOPPED)
