"""Progress of runs: lines of text, and on a terminal a bar with the time left. Loads no torch."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, final

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from understudy.experiment import splits
from understudy.experiment.callback import Callback, Callbacks
from understudy.experiment.live_details import LiveDetails

if TYPE_CHECKING:
    from understudy.training.trainer import Trainer

LOGGER = logging.getLogger("understudy")

_SUM_UP = 60.0
"""Seconds without a line after which an epoch of a series of runs has one."""

_WIDTH = 9
"""Characters per column on a terminal."""


def stdout_console() -> Console:
    """Return a console on the standard output: whole lines of plain text unless it is a terminal.

    A file, a pipe or a notebook has no width; 120 characters keep a row on one line for grep.
    """
    fixed = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
    return Console(width=fixed, force_jupyter=False)


@contextmanager
def displayed(progress: bool, callback: Callback | None) -> Iterator[Callback | None]:
    """Yield the callback to train with: `callback` and, with `progress`, a `Terminal`.

    Yields None in every process but the first.
    """
    from understudy.training.hardware import is_first_process  # loads torch, as training does

    if not (progress and is_first_process()):
        yield callback if is_first_process() else None
        return
    with Terminal() as terminal:
        yield Callbacks(terminal, callback) if callback else terminal


@final
class Terminal(Callback):
    """Prints a run with one row per epoch, or a series of runs with one row per run.

    On a terminal there are three lines below, which change: epoch, images per second and the time
    left; every loss; and the metric that ranks students, beside the teacher's and the control's as
    far as they are known.

    Inside its `with` block it also prints the messages of the logger `understudy` from INFO on. The
    end of the block removes these lines and the log handler, however training ends.

    Args:
        console: Console to print to; default: the standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or stdout_console()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[rate]} images/s "),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self.console,
            expand=True,
        )
        self._details = LiveDetails()
        self._live = Live(
            Group(self._bar, self._details),
            console=self.console,
            refresh_per_second=4,
            transient=True,
        )
        self._task = self._bar.add_task("", start=False, visible=False, rate="0")
        self._runs, self._ended = 1, 0
        self._metric = ""
        self._headings: list[str] = []
        self._moved, self._began, self._printed = 0.0, (0.0, 0.0), time.monotonic()
        self._messages: AbstractContextManager[None] = nullcontext()

    def __enter__(self) -> "Terminal":
        if self.console.is_terminal:
            self._live.start()
        self._messages = printed_messages(self._print)
        self._messages.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._messages.__exit__(kind, error, trace)
        if self.console.is_terminal:
            self._live.stop()

    def series(self, runs: int) -> None:
        """Begin a series of runs that belong together."""
        self._runs, self._ended = runs, 0
        self._bar.reset(self._task, start=False, visible=False)
        self._details.clear()

    def start(self, trainer: "Trainer", name: str) -> None:
        """Begin the rows and the bar of a run."""
        self._name, self._headings = name, []
        self._epochs = trainer.training.epochs
        self._steps = self._epochs * len(trainer.loader)
        self._metric = trainer.distiller.trainable.task.headline
        distiller = trainer.distiller
        compared = distiller.distillations and distiller.trainable.gives_scores
        fidelity = ["agreement"] if compared else []
        self._metrics = [self._metric, *fidelity]
        self._details.clear()
        self._began = time.monotonic(), float(trainer.position.epoch)
        # Reset, not updated: the speed is that of this run, not of runs finished before.
        self._bar.reset(
            self._task,
            total=self._runs * self._steps,
            completed=self._ended * self._steps,
            description=self._description(trainer.position.epoch),
            visible=True,
        )
        if self._runs == 1:
            epochs = f"{self._epochs} epoch{'s' * (self._epochs != 1)}"
            steps = len(trainer.loader)
            self._print(f"{name}: {epochs} of {steps} step{'s' * (steps != 1)}")

    def step(self, trainer: "Trainer") -> None:
        """Move the bar, at most four times a second."""
        if time.monotonic() - self._moved < 0.25:
            return
        position = trainer.position
        done = position.epoch * len(trainer.loader) + position.step
        self._bar.update(
            self._task,
            completed=self._ended * self._steps + done,
            description=self._description(position.epoch),
            rate=rate_text(position.images / max(position.seconds, 1e-9)),
        )
        # Of several processes, the sums over all are known at the end of an epoch alone.
        if self.console.is_terminal and trainer.accelerator.num_processes == 1:
            self._details.losses = trainer.mean_losses()
        self._moved = time.monotonic()

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Print the row of an epoch: every loss on a terminal, else only their total.

        A series of runs has no rows for epochs, but without a terminal one line a minute.
        """
        self._details.take(record, self._metric)
        if self._runs > 1:
            if not self.console.is_terminal and time.monotonic() - self._printed >= _SUM_UP:
                self._print(f"{self._name} [{self._ended + 1}/{self._runs}]{self._line(record)}")
            return
        if not self.console.is_terminal:
            self._print(self._line(record))
            return
        cells = self._cells(record)
        if list(cells) != self._headings:
            self._headings = list(cells)
            # A detector's own losses are named without `task/`: a column has no room for it.
            self._print(_aligned([x.removeprefix("task/") for x in self._headings]), style="bold")
        self._print(_aligned(list(cells.values())))

    def end(self, name: str, metric: str, evaluation: Mapping[str, Any]) -> None:
        """Print the row of a finished run, whether it ran now or earlier."""
        self._ended += 1
        label = metric_label(evaluation, metric, "validation")
        score = f"{label} {number_text(value_of(evaluation, metric))}"
        seconds = timedelta(seconds=round(evaluation["seconds"]))
        if self._runs == 1:
            own = ((evaluation.get("teacher") or {}).get("metrics") or {}).get(metric)
            beside = "" if own is None else f", teacher {number_text(own)}"
            self._print(f"{name}: {score}{beside} after {seconds}")
            if best := splits.best_sentence(evaluation.get("best"), metric):
                self._print(best)
        else:
            count = f"{self._ended:>{len(str(self._runs))}}/{self._runs}"
            self._print(f"{name:<24} [{count}]  {score}  {seconds}")
        if self._ended == self._runs:
            self.series(1)

    def _description(self, epoch: int) -> str:
        count = f" [{self._ended + 1}/{self._runs}]" if self._runs > 1 else ""
        return f"{self._name}{count}, epoch {min(epoch + 1, self._epochs)}/{self._epochs}"

    def _line(self, record: Mapping[str, Any]) -> str:
        number = f"{record['epoch']:>{len(str(self._epochs))}}/{self._epochs}"
        left = self._seconds_left(record["epoch"])
        remaining = "" if left is None else f"  {timedelta(seconds=round(left))} left"
        return f"  epoch {number}  {epoch_text(record, self._metric)}{remaining}"

    def _seconds_left(self, epoch: int) -> float | None:
        """Return the seconds of all later epochs, by those since the start; None at the end."""
        began, first = self._began
        gained, later = epoch - first, self._epochs - epoch
        return (time.monotonic() - began) / gained * later if gained > 0 and later else None

    def _cells(self, record: Mapping[str, Any]) -> dict[str, str]:
        """Heading → cell, as many as fit into the width of the terminal."""
        cells = {"epoch": f"{record['epoch']}/{self._epochs}"}
        cells |= {
            metric_label(record, name, "val."): number_text(value_of(record, name))
            for name in self._metrics
        }
        cells |= {"loss": f"{record['losses']['total']:.4f}"}
        cells |= {name: f"{x:.4f}" for name, x in record["losses"].items() if name != "total"}
        columns = self.console.width // (_WIDTH + 1)
        return dict(list(cells.items())[:columns])

    def _print(self, text: str, style: str | None = None) -> None:
        self._printed = time.monotonic()
        # No wrapping at any width: logs are searched by line.
        self.console.print(text, style=style, soft_wrap=True, highlight=False, markup=False)


@contextmanager
def printed_messages(show: Callable[[str], None]) -> Iterator[None]:
    """Print the messages of the logger `understudy` from INFO on, each once."""
    handler, level = _Printer(show), LOGGER.level
    if LOGGER.getEffectiveLevel() > logging.INFO:
        LOGGER.setLevel(logging.INFO)
    LOGGER.addHandler(handler)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)


@final
class _Printer(logging.Handler):
    """Prints every message once: the runs of a series repeat most of them."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._show = show
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._printed:
            self._show(message)
        self._printed.add(message)


def _aligned(cells: list[str]) -> str:
    return " ".join(cell[:_WIDTH].rjust(_WIDTH) for cell in cells)


def metric_label(record: Mapping[str, Any], metric: str, validation: str) -> str:
    """Return how a metric of an epoch is called: only that of the test images by its name alone."""
    return f"{validation} {metric}" if record.get("split") == "validation" else metric


def epoch_text(record: Mapping[str, Any], metric: str) -> str:
    """Return metric, loss and speed of an epoch."""
    return (
        f"{metric_label(record, metric, 'validation')} {number_text(value_of(record, metric))}"
        f"  loss {record['losses']['total']:.4f}  {rate_text(record['images_per_second'])} images/s"
    )


def rate_text(images: float) -> str:
    """Return images per second as text."""
    return f"{images:,.0f}" if images >= 10 else f"{images:.1f}"


def value_of(record: Mapping[str, Any], name: str) -> float | None:
    """Return a metric or a fidelity measure of an epoch's record or an evaluation."""
    return ((record["metrics"] or {}) | (record["fidelity"] or {})).get(name)


def number_text(value: float | None) -> str:
    """Return a metric as text; `–` if it was not measured."""
    return "–" if value is None else f"{value:.2f}" if value >= 10 else f"{value:.4f}"
