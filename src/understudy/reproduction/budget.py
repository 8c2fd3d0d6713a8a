"""A budget of time: how much is left, and a callback that stops a run when it is spent."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

from understudy.errors import RecipeError
from understudy.experiment.callback import Callback
from understudy.training.signals import ask_to_stop

if TYPE_CHECKING:
    from understudy.training.trainer import Trainer

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(budget: str | float) -> float:
    """Return the seconds of a duration such as `90s`, `10m` or `1.5h`; a number is seconds.

    Raises:
        RecipeError: It is no duration, or none above 0.

    >>> seconds_of("1.5h")
    5400.0
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(budget).lower())
    unit = _UNITS.get(match[2] or ("" if isinstance(budget, str) else "s")) if match else None
    seconds = float(match[1]) * unit if match and unit else 0.0
    if not 0 < seconds < float("inf"):
        raise RecipeError(
            f"--budget is {str(budget)!r}; it must be a duration above 0 with its unit, such as "
            "90s, 10m or 1.5h."
        )
    return seconds


@final
class Budget(Callback):
    """Time that may be spent from now on, and the callback that keeps a run within it.

    A run that is under way when nothing is left is stopped as by a signal: it saves its state and
    raises `Interrupted`. That works in the main thread; elsewhere, a run that began is finished.

    Args:
        seconds: What may be spent; None for no limit.

    Attributes:
        stopped: True once a run was stopped.
    """

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds
        self.stopped = False

    @property
    def left(self) -> float:
        """Seconds that are left; infinite without a limit."""
        return float("inf") if self._end is None else self._end - time.monotonic()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Stop what is under way at the end of the budget, where other processes make the steps."""
        timer = threading.Timer(min(max(self.left, 0.0), threading.TIMEOUT_MAX), self._stop)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def step(self, trainer: "Trainer") -> None:
        """Stop the run if nothing is left."""
        if self.left <= 0 and not self.stopped:
            self._stop()

    def _stop(self) -> None:
        self.stopped = ask_to_stop("SIGTERM")
