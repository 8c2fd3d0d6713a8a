"""Time that the runs of a comparison will take, by those that are finished or under way."""

import heapq
import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from statistics import mean
from typing import TYPE_CHECKING, Any, final

from understudy.comparison.arms import Job
from understudy.experiment.callback import Callback
from understudy.experiment.run_time import in_words

if TYPE_CHECKING:
    from understudy.training.trainer import Trainer

LOGGER = logging.getLogger("understudy")


@final
class Forecast:
    """Predicts when all jobs are done, and says so before they start and after the first epoch.

    A run takes as long as the finished ones of its arm, else of any arm; else as the first epochs
    of those under way suggest, in which a bank may still be empty. A control without labels, which
    is only measured, takes no time and tells nothing of the others.

    Args:
        jobs: All jobs of the comparison.
        at_once: How many are trained at once.
    """

    def __init__(self, jobs: Sequence[Job], at_once: int) -> None:
        self._jobs, self._at_once = list(jobs), at_once
        self._began: dict[str, tuple[float, float]] = {}
        self._share: dict[str, float] = {}
        self._said_after_epoch = False

    def say_before(self) -> None:
        """Log the time of all that is left, if a finished run tells it."""
        ended, left = self._ended(), self.seconds_left()
        if ended and left:
            LOGGER.info(
                f"About {in_words(left)} for {len(self._jobs) - len(ended)} of {len(self._jobs)} "
                f"runs, as the {len(ended)} finished ones took."
            )
        elif not ended:
            LOGGER.info("How long it takes is known after the first epoch.")

    def begin(self, job: Job, share: float) -> None:
        """Note that a job begins, with a share of its steps already done."""
        self._began[job.name], self._share[job.name] = (time.monotonic(), share), share

    def move(self, job: Job, share: float) -> None:
        """Note which share of the steps of a job is done."""
        self._share[job.name] = share

    def epoch(self, job: Job, number: int) -> None:
        """Note the end of an epoch; after the first one, log the time that is left."""
        self.move(job, number / job.recipe.training.epochs)
        left = self.seconds_left()
        if not self._said_after_epoch and left is not None:
            self._said_after_epoch = True
            count = sum(not _over(each) for each in self._jobs)
            LOGGER.info(
                f"About {in_words(left)} left for {count} run{'s' * (count != 1)}, after the first "
                f"epoch of {job.name}."
            )

    def seconds_left(self) -> float | None:
        """Return the seconds until all jobs are done; None before anything is known."""
        known = self._known()
        if not known:
            return None
        overall = mean(seconds for times in known.values() for seconds in times)
        # Each job goes to the place that is free first, as when they are trained.
        places = [0.0] * self._at_once
        for job in sorted(
            (job for job in self._jobs if not _over(job)),
            key=lambda job: job.name not in self._share,
        ):
            whole = mean(known.get(job.arm) or [overall]) if _is_trained(job) else 0.0
            remaining = whole * (1.0 - self._share.get(job.name, 0.0))
            heapq.heapreplace(places, places[0] + remaining)
        return max(places)

    def _known(self) -> dict[str, list[float]]:
        """Return arm → seconds of its whole runs: of finished ones, else as far as they are."""
        known: dict[str, list[float]] = {}
        for job in filter(_is_trained, self._ended()):
            known.setdefault(job.arm, []).append(job.run.seconds)
        if known:
            return known
        for job in self._jobs:
            began, first = self._began.get(job.name, (0.0, 0.0))
            gained = self._share.get(job.name, 0.0) - first
            if gained > 0:
                known.setdefault(job.arm, []).append((time.monotonic() - began) / gained)
        return known

    def _ended(self) -> list[Job]:
        return [job for job in self._jobs if job.run.finished]


@final
class Timed(Callback):
    """Tells a forecast how far one job is."""

    def __init__(self, forecast: Forecast, job: Job) -> None:
        self._forecast, self._job = forecast, job

    def start(self, trainer: "Trainer", name: str) -> None:
        """Note the steps that are done already."""
        self._forecast.begin(self._job, share_done(trainer))

    def epoch(self, record: dict[str, Any]) -> None:
        """Note the end of an epoch."""
        self._forecast.epoch(self._job, record["epoch"])


def share_done(trainer: "Trainer") -> float:
    """Return the share of the steps of a run that are done."""
    position, steps = trainer.position, len(trainer.loader)
    return (position.epoch + position.step / steps) / trainer.training.epochs


def clock(seconds: float | None) -> str:
    """Return a duration as on a clock, such as `0:03:10`; `–` if it is not known."""
    return "–" if seconds is None else str(timedelta(seconds=round(seconds)))


def _is_trained(job: Job) -> bool:
    """Return False for a control without labels, which is only measured."""
    return bool(job.recipe.methods) or job.recipe.task != "none"


def _over(job: Job) -> bool:
    return job.run.finished or bool(job.run.diverged)
