"""The jobs of a comparison: one run for every arm and seed, and what came of each."""

import logging
import time
import traceback
from collections.abc import Sequence
from typing import final

from understudy import files
from understudy.comparison.arms import CONTROL, Job
from understudy.comparison.jobs.beside_control import BesideControl
from understudy.comparison.jobs.forecast import Forecast, Timed
from understudy.comparison.jobs.schedule import TRACEBACK, Failure, Outcome, Schedule
from understudy.errors import Busy, Diverged, Interrupted, RunError, UnderstudyError
from understudy.experiment.callback import Callback, Callbacks
from understudy.experiment.images import ImagesOfRecipes
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train
from understudy.training import hardware
from understudy.training.threads import ThreadChoice

LOGGER = logging.getLogger("understudy")

_LOOK_AGAIN = 2.0
"""Seconds until a run that another process writes is looked at again."""


def attempt(
    job: Job,
    images: ImagesOfRecipes,
    *,
    device: str | None,
    threads: ThreadChoice,
    callback: Callback | None,
) -> Outcome:
    """Train one run to its end, from where it stopped.

    Raises:
        Interrupted: A signal arrived; the state was saved.
        Exception: What went wrong, in one of several processes that train together.
    """
    begun = job.run.begun
    try:
        train(
            job.recipe,
            out=job.run.path,
            resume=begun,
            device=device,
            callback=callback,
            threads=threads,
            images=None if job.run.finished else images(job.recipe),
        )
    except Interrupted:
        raise
    except Busy:
        if hardware.is_grouped():
            raise
        return "busy"
    except Exception as error:
        # Of several processes that train together, one alone cannot go on with another run.
        if hardware.is_grouped() and not isinstance(error, Diverged):
            raise
        # Another process began it after this one looked: it is to be continued.
        if isinstance(error, RunError) and not begun and job.run.begun:
            return "busy"
        if not isinstance(error, UnderstudyError):
            files.write(job.run.path / TRACEBACK, traceback.format_exc())
        return Failure.of(error)
    (job.run.path / TRACEBACK).unlink(missing_ok=True)
    return "finished"


@final
class Agenda:
    """The jobs of a comparison in their order, and the failures of those that ended too early.

    An arm that diverged is not trained with later seeds. A run that another process writes is
    looked at again later: it is finished then, or was left behind and can be continued.

    Args:
        jobs: All jobs, seed by seed, the control first.

    Attributes:
        failures: Job → why its run is not finished.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = list(jobs)
        self.failures: dict[tuple[str, int], Failure] = {}
        self._waiting = list(jobs)
        self._under_way: set[str] = set()
        self._place = {job.name: place for place, job in enumerate(jobs)}
        self._due: dict[tuple[str, int], float] = {}
        self._told = False

    @property
    def left(self) -> list[Job]:
        """Jobs that still take time: those under way, and those that can be finished so far."""
        names = {job.name for job in self._worthwhile() if (job.arm, job.seed) not in self.failures}
        return [job for job in self.jobs if job.name in names | self._under_way and not job.over]

    @property
    def waits(self) -> bool:
        """True if a job was not taken yet, or was seen to be written by another process."""
        return bool(self._untaken())

    def next(self) -> Job | None:
        """Take the first job that is due; None if none is."""
        now = time.monotonic()
        for job in self._untaken():
            if self._due.get((job.arm, job.seed), 0.0) <= now:
                self._waiting.remove(job)
                self._under_way.add(job.name)
                return job
        return None

    def end(self, job: Job, outcome: Outcome) -> None:
        """Note what came of a job.

        Raises:
            UnderstudyError: That of the control, without which no arm can be judged.
            RunError: The run saw other images or another teacher than the control.
        """
        self._under_way.discard(job.name)
        if outcome == "busy":
            self._postpone(job)
        elif isinstance(outcome, Failure):
            self._fail(job, outcome)
        else:
            self.check_same(job.seed)

    def ended(self) -> dict[str, list[Run]]:
        """Return arm → its runs that are finished, up to one that diverged."""
        runs: dict[str, list[Run]] = {job.arm: [] for job in self.jobs}
        for job in self._worthwhile():
            if job.over:
                runs[job.arm].append(job.run)
        return runs

    def missing(self) -> dict[tuple[str, int], str]:
        """Return arm and seed of every run that should be finished and is not → why."""
        return {
            (job.arm, job.seed): failure.reason if failure else "It was left unfinished."
            for job in self._worthwhile()
            if not job.over
            for failure in [self.failures.get((job.arm, job.seed))]
        }

    def check_same(self, seed: int) -> None:
        """Refuse runs of a seed that saw other images or another teacher than the control.

        Raises:
            RunError: A digest differs.
        """
        runs = [job.run for job in self.jobs if job.seed == seed and job.over]
        digests = [run.environment["digests"] for run in runs]
        for run, of_run in zip(runs, digests, strict=True):
            if of_run != digests[0]:
                what = ", ".join(key for key in of_run if of_run[key] != digests[0].get(key))
                raise RunError(
                    f"{run.path} was made with another {what} than the {runs[0].path.parent.name}; "
                    "remove the older of both and compare again."
                )

    def _untaken(self) -> list[Job]:
        """Return the jobs that wait, without those of an arm that diverged meanwhile."""
        worthwhile = {job.name for job in self._worthwhile()}
        return [job for job in self._waiting if job.name in worthwhile]

    def _worthwhile(self) -> list[Job]:
        """Return the jobs of each arm up to the first that diverged: later seeds would too."""
        jobs, diverged = [], set()
        for job in self.jobs:
            if job.arm not in diverged:
                jobs.append(job)
            if job.run.diverged:
                diverged.add(job.arm)
        return jobs

    def _postpone(self, job: Job) -> None:
        self._waiting = sorted([*self._waiting, job], key=lambda each: self._place[each.name])
        self._due[job.arm, job.seed] = time.monotonic() + _LOOK_AGAIN
        if not self._told:
            LOGGER.info(f"{job.recipe.name} is being trained by another process; others go first.")
        self._told = True

    def _fail(self, job: Job, failure: Failure) -> None:
        if failure.kind == Diverged.__name__:
            if job.arm == CONTROL:
                raise failure.error()
            return
        self.failures[job.arm, job.seed] = failure
        LOGGER.warning(f"{job.recipe.name} failed: {failure.reason} The other runs go on.")
        if job.arm == CONTROL and failure.mendable:
            raise failure.error()


def in_turn(
    agenda: Schedule,
    images: ImagesOfRecipes,
    *,
    device: str | None,
    threads: ThreadChoice,
    callback: Callback | None,
    forecast: Forecast | None = None,
) -> None:
    """Train all jobs one after the other in this process.

    Args:
        agenda: Hands them out.
        images: Reads their images.
        device: As for `train`.
        threads: As for `train`.
        callback: Called with the progress of every run.
        forecast: Predicts the time that is left after the first epoch; None for no prediction.

    Raises:
        UnderstudyError: As for `Schedule.end`.
        Interrupted: A signal arrived; the state was saved.
    """
    while agenda.waits:
        job = agenda.next()
        if job is None:
            time.sleep(_LOOK_AGAIN / 4)
            continue
        listener: Callback | None = BesideControl(job, callback) if callback else None
        if forecast:
            listener = Callbacks(*filter(None, [listener]), Timed(forecast, job))
        outcome = attempt(job, images, device=device, threads=threads, callback=listener)
        agenda.end(job, outcome)
