"""Progress of several runs at once: a table on a terminal, otherwise lines. Loads no torch."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

from rich.box import SIMPLE_HEAD
from rich.live import Live
from rich.table import Table

from understudy.comparison.arms import Job
from understudy.comparison.jobs.beside_control import with_control
from understudy.comparison.jobs.forecast import Forecast, clock
from understudy.experiment.callback import Callback
from understudy.experiment.progress import (
    number_text,
    printed_messages,
    rate_text,
    stdout_console,
    value_of,
)

if TYPE_CHECKING:
    from understudy.tasks import Task

LOGGER = logging.getLogger("understudy")

_SUM_UP = 60.0
"""Seconds between two lines that sum up the runs under way, where there is no terminal."""


@dataclass(frozen=True)
class Event:
    """Progress that a worker passes on; `at` is when, by the clock that all processes share."""

    at: float = field(default_factory=time.monotonic, kw_only=True)


@final
@dataclass(frozen=True)
class Started(Event):
    """Training began, or continues; `share` of its steps are done."""

    share: float


@final
@dataclass(frozen=True)
class Moved(Event):
    """Some steps are done; `epoch` counts whole epochs."""

    share: float
    epoch: int
    images_per_second: float


@final
@dataclass(frozen=True)
class EpochEnded(Event):
    """An epoch is done; `record` is its line of `metrics.jsonl`."""

    record: dict[str, Any]


@final
@dataclass(frozen=True)
class Ended(Event):
    """A run is finished."""

    metric: str
    evaluation: dict[str, Any]


@final
@dataclass(frozen=True)
class Logged(Event):
    """A message of the logger `understudy`, with the `subject` of a warning that names one."""

    level: int
    message: str
    subject: str | None = None


@final
@dataclass
class _Row:
    """What the table shows of a run that is being trained."""

    job: Job
    epoch: int | None = None
    images_per_second: float = 0.0
    score: float | None = None
    control: float | None = None
    share: float = 0.0
    first_share: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds_left(self) -> float | None:
        gained = self.share - self.first_share
        return (time.monotonic() - self.began) / gained * (1 - self.share) if gained > 0 else None


@final
class JobsTable:
    """Shows the runs of a comparison that are trained at once, and tells callbacks of them.

    On a terminal a table has a row for every run that is being trained. Above it, or without a
    terminal alone, there is a line for every run that is finished. Without a terminal a line tells
    how far all runs are that are being trained, at most once a minute.

    Args:
        jobs: All jobs of the comparison.
        forecast: Predicts the time of all of them.
        task: Task of the jobs, which names the metric that ranks students.
        progress: Print; otherwise only tell the callback.
        callback: Told of `series`, of every `epoch`, whose record has the entry `run` besides, and
            of every `end`.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        forecast: Forecast,
        *,
        task: "Task",
        progress: bool,
        callback: Callback | None,
    ) -> None:
        self._jobs, self._forecast = list(jobs), forecast
        self._task, self._metric = task, task.headline
        self._callback, self._progress = callback, progress
        self._console = stdout_console()
        self._rows: dict[str, _Row] = {}
        self._over: set[str] = set()
        self._live: Live | None = None
        self._teacher: float | None = None
        self._drawn = self._summed_up = time.monotonic()

    @contextmanager
    def shown(self) -> Iterator["JobsTable"]:
        """Show the table meanwhile, and print the messages of the logger `understudy`."""
        messages = printed_messages(self._print) if self._progress else nullcontext()
        with messages, self._on_terminal():
            yield self

    def _on_terminal(self) -> AbstractContextManager[object]:
        if not (self._progress and self._console.is_terminal):
            return nullcontext()
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)
        return self._live

    def begin(self, job: Job) -> None:
        """Show that a worker builds a run, before training begins."""
        self._rows[job.name] = _Row(job)
        self._forecast.hand(job)

    def finished(self, job: Job) -> None:
        """Show a run that was finished before."""
        evaluation = job.run.evaluation
        self._ended(job, Ended(self._task.judged_by(evaluation["metrics"]), evaluation))

    def take(self, job: Job | None, event: Event) -> None:
        """Take an event of the worker that trains a job; of none between two jobs."""
        if isinstance(event, Logged):
            LOGGER.log(event.level, event.message, extra={"subject": event.subject})
        elif job is not None:
            self._of_job(job, event)

    def end(self, job: Job) -> None:
        """Remove the row of a job that is finished, failed or stopped."""
        self._rows.pop(job.name, None)

    def refresh(self) -> None:
        """Draw the table again a few times a second, or sum it up in a line once a minute."""
        now = time.monotonic()
        if self._live and now - self._drawn > 0.4:
            self._live.update(self._table())
            self._drawn = now
        if self._progress and not self._live and now - self._summed_up > _SUM_UP:
            self._print(self._summary())
            self._summed_up = now

    def _of_job(self, job: Job, event: Event) -> None:
        row = self._rows[job.name]
        if isinstance(event, Started):
            row.share = row.first_share = event.share
            row.epoch, row.began = int(event.share * job.recipe.training.epochs), event.at
            self._forecast.begin(job, event.share, event.at)
        elif isinstance(event, Moved):
            row.share, row.epoch = event.share, event.epoch
            row.images_per_second = event.images_per_second
            self._forecast.move(job, event.share, event.at)
        elif isinstance(event, EpochEnded):
            self._epoch(row, event)
        elif isinstance(event, Ended):
            self._ended(job, event)

    def _epoch(self, row: _Row, event: EpochEnded) -> None:
        record, job, epochs = event.record, row.job, row.job.recipe.training.epochs
        row.epoch, row.share = record["epoch"], record["epoch"] / epochs
        row.score, row.images_per_second = (
            value_of(record, self._metric),
            record["images_per_second"],
        )
        self._forecast.epoch(job, record["epoch"], event.at)
        beside = with_control(dict(record), job, self._metric)
        row.control, self._teacher = beside.get("control"), beside.get("teacher", self._teacher)
        if self._callback:
            self._callback.epoch({**beside, "run": job.name})

    def _ended(self, job: Job, event: Ended) -> None:
        self._over.add(job.name)
        score = f"{event.metric} {number_text(value_of(event.evaluation, event.metric))}"
        count = f"{len(self._over):>{len(str(len(self._jobs)))}}/{len(self._jobs)}"
        seconds = clock(event.evaluation["seconds"])
        if self._progress:
            self._print(f"{job.name:<24} [{count}]  {score}  {seconds}")
        if self._callback:
            self._callback.end(job.name, event.metric, event.evaluation)
        self._forecast.end(job)

    def _summary(self) -> str:
        """Return in a line how far the runs are that are being trained."""
        going = ", ".join(
            f"{name} {'starts' if row.epoch is None else self._state(row)}"
            for name, row in self._rows.items()
        )
        return f"{self._caption()}: {going or 'none under way'}"

    def _state(self, row: _Row) -> str:
        score = "" if row.score is None else f" {self._metric} {number_text(row.score)}"
        return f"epoch {_epoch_of(row)}{score}"

    def _caption(self) -> str:
        left = clock(self._forecast.seconds_left())
        return f"{len(self._over)} of {len(self._jobs)} runs done, {left} left"

    def _table(self) -> Table:
        caption = self._caption()
        if self._teacher is not None:
            caption += f"; teacher {self._metric} {number_text(self._teacher)}"
        table = Table(box=SIMPLE_HEAD, show_edge=False, caption=caption, caption_justify="left")
        for place, title in enumerate(
            ("run", "epoch", "images/s", self._metric, "control", "left")
        ):
            table.add_column(title, justify="right" if place else "left", no_wrap=True)
        for name, row in self._rows.items():
            table.add_row(
                name,
                "starts" if row.epoch is None else _epoch_of(row),
                rate_text(row.images_per_second),
                number_text(row.score),
                number_text(row.control),
                clock(row.seconds_left),
            )
        return table

    def _print(self, text: str) -> None:
        # No wrapping at any width: logs are searched by line.
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


def _epoch_of(row: _Row) -> str:
    epochs = row.job.recipe.training.epochs
    return f"{min((row.epoch or 0) + 1, epochs)}/{epochs}"
