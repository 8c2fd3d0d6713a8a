"""What hands out jobs, and what came of each: finished, failed, or trained by another process."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, final

from understudy import errors
from understudy.comparison.arms import Job
from understudy.errors import OutOfMemory, UnderstudyError

TRACEBACK = "failed.txt"
"""File of a run directory with the traceback of an error that is no mistake of the user."""


@final
@dataclass(frozen=True)
class Failure:
    """Why a run ended before it was finished.

    Attributes:
        kind: Name of the class of the error.
        reason: One or two sentences.
    """

    kind: str
    reason: str

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """Return what an error says; that of a bug with the name of its class."""
        kind = type(error).__name__
        if isinstance(error, UnderstudyError):
            return cls(kind, str(error))
        words = " ".join(f"{kind}: {error}".split())
        return cls(kind, f"Internal error, {words} (all of it in {TRACEBACK}).")

    @property
    def mendable(self) -> bool:
        """True if it meets every run until the user mends it; want of memory may pass by itself."""
        return self.kind in _ERRORS.keys() - {OutOfMemory.__name__}

    def error(self) -> UnderstudyError:
        """Return the error to raise for it."""
        kind = _ERRORS.get(self.kind, UnderstudyError)
        # Not by its constructor, which may take the parts of the sentence in place of it.
        return kind.__new__(kind, self.reason)


_ERRORS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, UnderstudyError)
}

Outcome = Literal["finished", "busy"] | Failure
"""What came of an attempt: `busy` if another process writes the run."""


class Schedule(Protocol):
    """Hands out jobs, and is told what came of each."""

    @property
    def jobs(self) -> Sequence[Job]:
        """All jobs, whatever became of them."""

    @property
    def left(self) -> Sequence[Job]:
        """Jobs that still take time: those under way, and those that nothing rules out so far."""

    @property
    def waits(self) -> bool:
        """True if a job can be handed out, now or later; False while those under way decide it."""

    def next(self) -> Job | None:
        """Take a job; None if none can be begun at present."""

    def end(self, job: Job, outcome: Outcome) -> None:
        """Note what came of a job.

        Raises:
            UnderstudyError: Nothing else is to be trained.
        """
