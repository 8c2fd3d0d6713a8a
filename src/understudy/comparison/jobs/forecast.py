"""Time that the runs of a comparison will take, by those that are finished or under way."""

import heapq
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import mean
from typing import TYPE_CHECKING, Any, final

from understudy.comparison.arms import CONTROL, Job
from understudy.comparison.jobs.schedule import Schedule
from understudy.experiment.callback import Callback
from understudy.experiment.run_time import in_words

if TYPE_CHECKING:
    from understudy.training.trainer import Trainer

LOGGER = logging.getLogger("understudy")

_SAY_AGAIN = 60.0
"""Seconds until the time left is logged again, when a run ends."""


@final
@dataclass
class _Progress:
    """What is known of a job that was handed out in this call.

    Attributes:
        handed: When it was handed out: building its networks and measuring its teacher take time
            too.
        began: When its training began; None before that.
        first: Share of its steps that was done before.
        share: Share that is done now.
        moved: When that share was done.
        ended: When the run had ended.
    """

    handed: float
    began: float | None = None
    first: float = 0.0
    share: float = 0.0
    moved: float = 0.0
    ended: float | None = None

    @property
    def whole_seconds(self) -> float | None:
        """Seconds of a whole run, as far as this one tells them; None if it does not yet."""
        gained = self.share - self.first
        if self.began is None or gained <= 0:
            return None
        # What comes after the last step, such as the evaluation, counts as if it were a step.
        until = self.moved if self.ended is None else self.ended
        return (self.began - self.handed) + (until - self.began) / gained


@final
class Forecast:
    """Predicts when all jobs are done, and says it before they start and again as they go on.

    A run takes as long as those of its arm: finished ones, else one under way, from the time when
    it was handed out. An arm of which nothing is known takes as long as the others on average;
    controls, which have no teacher, tell of other arms only while nothing else is known. A
    control without labels is only measured: it takes no time.

    Args:
        schedule: Says which jobs are left.
        at_once: How many are trained at once.
    """

    def __init__(self, schedule: Schedule, at_once: int) -> None:
        self._schedule, self._at_once = schedule, at_once
        self._progress: dict[str, _Progress] = {}
        self._said_of_control = self._said_of_arm = False
        self._said_at = -_SAY_AGAIN

    def say_before(self) -> None:
        """Log the time of all that is left, if a finished run tells it."""
        jobs, left = self._schedule.jobs, self._schedule.left
        ended = [job for job in jobs if job.run.finished]
        seconds = self._seconds(left)
        if ended and seconds:
            LOGGER.info(
                f"About {in_words(seconds)} for {len(left)} of {len(jobs)} "
                f"runs, as the {len(ended)} finished ones took."
            )
        elif not ended:
            LOGGER.info("How long it takes is known after the first epoch.")

    def hand(self, job: Job) -> None:
        """Note that a job is handed out: from now on it takes time."""
        self._progress[job.name] = _Progress(time.monotonic())

    def begin(self, job: Job, share: float, at: float | None = None) -> None:
        """Note that the training of a job begins.

        Args:
            job: The job.
            share: Share of its steps that is done already.
            at: When it began, by the clock of `time.monotonic`; None for now.
        """
        now = _now(at)
        progress = self._progress.setdefault(job.name, _Progress(now))
        progress.began, progress.first, progress.share, progress.moved = now, share, share, now

    def move(self, job: Job, share: float, at: float | None = None) -> None:
        """Note which share of the steps of a job is done, and when."""
        progress = self._progress.setdefault(job.name, _Progress(_now(at)))
        progress.share, progress.moved = share, _now(at)

    def epoch(self, job: Job, number: int, at: float | None = None) -> None:
        """Note the end of an epoch; after the first one, log the time that is left.

        It is logged again after the first epoch of an arm with a method, if a control came first.
        """
        self.move(job, number / job.recipe.training.epochs, at)
        of_arm = bool(job.recipe.each_method)
        if self._said_of_arm or (self._said_of_control and not of_arm):
            return
        self._said_of_arm, self._said_of_control = of_arm, True
        note = "" if of_arm else "; arms with a method take longer"
        self._say(f", after the first epoch of {job.name}{note}")

    def end(self, job: Job) -> None:
        """Note that a run has ended; log the time that is left, at most once a minute."""
        progress = self._progress.get(job.name)
        if progress is None or progress.began is None:  # it was finished before
            return
        progress.ended, progress.share = time.monotonic(), 1.0
        if _is_trained(job) and time.monotonic() - self._said_at >= _SAY_AGAIN:
            self._say(f", after {job.name}")

    def seconds_left(self) -> float | None:
        """Return the seconds until all jobs are done; None before anything is known."""
        return self._seconds(self._schedule.left)

    def _seconds(self, left: Sequence[Job]) -> float | None:
        """Return the seconds until some jobs are done; None before anything is known."""
        known = self._known()
        if not known:
            return None
        taught = [x for arm, times in known.items() if arm != CONTROL for x in times]
        others = mean(taught or known[CONTROL])
        # Each job goes to the place that is free first, as when they are trained.
        places = [0.0] * self._at_once
        for job in sorted(left, key=lambda job: job.name not in self._progress):
            whole = mean(known.get(job.arm) or [others]) if _is_trained(job) else 0.0
            heapq.heapreplace(places, places[0] + self._remaining(job, whole))
        return max(places)

    def _remaining(self, job: Job, whole: float) -> float:
        """Return the seconds that a job still takes, of those of a whole run."""
        progress = self._progress.get(job.name)
        if progress is None:
            return whole
        if progress.share < 1.0 or progress.first:
            return whole * (1.0 - progress.share)
        # It is evaluated, for as long as other runs of its arm took after their last step.
        return max(0.0, whole - (time.monotonic() - progress.handed))

    def _say(self, reason: str) -> None:
        left = self._schedule.left
        if seconds := self._seconds(left):
            self._said_at = time.monotonic()
            runs = f"{len(left)} run{'s' * (len(left) != 1)}"
            LOGGER.info(f"About {in_words(seconds)} left for {runs}{reason}.")

    def _known(self) -> dict[str, list[float]]:
        """Return arm → seconds of its whole runs: of those that ended, else as far as they are."""
        ended: dict[str, list[float]] = {}
        going: dict[str, list[float]] = {}
        for job in filter(_is_trained, self._schedule.jobs):
            seconds = self._seconds_of(job)
            if seconds is not None:
                into = ended if job.over else going
                into.setdefault(job.arm, []).append(seconds)
        return going | ended

    def _seconds_of(self, job: Job) -> float | None:
        """Return the seconds of a whole run of a job: as it took now, else as it recorded."""
        progress = self._progress.get(job.name)
        if progress and (seconds := progress.whole_seconds) is not None:
            return seconds
        return job.run.seconds if job.run.finished else None


@final
class Timed(Callback):
    """Tells a forecast how far one job is."""

    def __init__(self, forecast: Forecast, job: Job) -> None:
        self._forecast, self._job = forecast, job
        forecast.hand(job)

    def start(self, trainer: "Trainer", name: str) -> None:
        """Note the steps that are done already."""
        self._forecast.begin(self._job, share_done(trainer))

    def epoch(self, record: dict[str, Any]) -> None:
        """Note the end of an epoch."""
        self._forecast.epoch(self._job, record["epoch"])

    def end(self, name: str, metric: str, evaluation: dict[str, Any]) -> None:
        """Note the end of the run."""
        self._forecast.end(self._job)


def _now(at: float | None) -> float:
    return time.monotonic() if at is None else at


def share_done(trainer: "Trainer") -> float:
    """Return the share of the steps of a run that are done."""
    position, steps = trainer.position, len(trainer.loader)
    return (position.epoch + position.step / steps) / trainer.training.epochs


def clock(seconds: float | None) -> str:
    """Return a duration as on a clock, such as `0:03:10`; `–` if it is not known."""
    return "–" if seconds is None else str(timedelta(seconds=round(seconds)))


def _is_trained(job: Job) -> bool:
    """Return False for a control without labels, which is only measured."""
    return bool(job.recipe.each_method) or job.recipe.task != "none"
