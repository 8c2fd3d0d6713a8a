"""Progress of runs: a table that grows downwards, and on a terminal a bar with the time left."""

import logging
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from understudy.training.trainer import Trainer

LOGGER = logging.getLogger("understudy")

_WIDTH = 9
"""Characters of a column on a terminal."""


@final
class Terminal:
    """Watches a run, one row for each epoch, or a series of runs, one row for each run.

    Inside its `with` block it also prints what the logger `understudy` says at INFO and above; the
    end of the block removes the bar and the handler, however training ends.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[rate]} images/s "),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self.console,
            refresh_per_second=4,
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task("", start=False, visible=False, rate="0")
        self._runs, self._ended = 1, 0
        self._headings: list[str] = []
        self._moved = 0.0
        self._handler = _Printer(self._print)
        self._level = logging.NOTSET

    def __enter__(self) -> "Terminal":
        if self.console.is_terminal:
            self._bar.start()
        self._level = LOGGER.level
        LOGGER.setLevel(logging.INFO)
        LOGGER.addHandler(self._handler)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        LOGGER.removeHandler(self._handler)
        LOGGER.setLevel(self._level)
        if self.console.is_terminal:
            self._bar.stop()

    def series(self, runs: int) -> None:
        """The next so many runs belong together."""
        self._runs, self._ended = runs, 0
        self._bar.reset(self._task, start=False, visible=False)

    def start(self, trainer: Trainer, name: str) -> None:
        """Show a new run."""
        self._name, self._headings = name, []
        self._epochs = trainer.training.epochs
        self._steps = self._epochs * len(trainer.loader)
        self._metric = trainer.distiller.trainable.task.headline
        fidelity = ["agreement"] if trainer.distiller.teacher else []
        self._metrics = [self._metric, *fidelity]
        # Reset, not updated: runs that were finished before say nothing about the speed of this.
        self._bar.reset(
            self._task,
            total=self._runs * self._steps,
            completed=self._ended * self._steps,
            description=self._description(trainer.position.epoch),
            visible=True,
        )
        if self._runs == 1:
            self._print(f"{name}: {self._epochs} epochs of {len(trainer.loader)} steps")

    def step(self, trainer: Trainer) -> None:
        """Move the bar, at most four times a second."""
        if time.monotonic() - self._moved < 0.25:
            return
        here = trainer.position
        done = here.epoch * len(trainer.loader) + here.step
        self._bar.update(
            self._task,
            completed=self._ended * self._steps + done,
            description=self._description(here.epoch),
            rate=_rate(here.images / max(here.seconds, 1e-9)),
        )
        self._moved = time.monotonic()

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Add a row of a lone run: every loss on a terminal, only the total in a log."""
        if self._runs > 1:
            return
        if not self.console.is_terminal:
            self._print(self._line(record))
            return
        cells = self._cells(record)
        if list(cells) != self._headings:
            self._headings = list(cells)
            # Of a detector's own losses only the part is told: there is no room for more.
            self._print(_aligned([x.removeprefix("task/") for x in self._headings]), style="bold")
        self._print(_aligned(list(cells.values())))

    def end(self, name: str, metric: str, evaluation: Mapping[str, Any]) -> None:
        """Add the row of a run that is finished, perhaps since long."""
        self._ended += 1
        score = f"{metric} {_number(_value(evaluation, metric))}"
        seconds = timedelta(seconds=round(evaluation["seconds"]))
        if self._runs == 1:
            self._print(f"{name}: {score} after {seconds}")
        else:
            place = f"{self._ended:>{len(str(self._runs))}}/{self._runs}"
            self._print(f"{name:<24} [{place}]  {score}  {seconds}")
        if self._ended == self._runs:
            self.series(1)

    def _description(self, epoch: int) -> str:
        place = f" [{self._ended + 1}/{self._runs}]" if self._runs > 1 else ""
        return f"{self._name}{place}, epoch {min(epoch + 1, self._epochs)}/{self._epochs}"

    def _line(self, record: Mapping[str, Any]) -> str:
        number = f"{record['epoch']:>{len(str(self._epochs))}}/{self._epochs}"
        return (
            f"  epoch {number}  {self._metric} {_number(_value(record, self._metric))}"
            f"  loss {record['losses']['total']:.4f}  {_rate(record['images_per_second'])} images/s"
        )

    def _cells(self, record: Mapping[str, Any]) -> dict[str, str]:
        """Heading → cell, in as many columns as the terminal is wide."""
        cells = {"epoch": f"{record['epoch']}/{self._epochs}"}
        cells |= {name: _number(_value(record, name)) for name in self._metrics}
        cells |= {"loss": f"{record['losses']['total']:.4f}"}
        cells |= {name: f"{x:.4f}" for name, x in record["losses"].items() if name != "total"}
        room = self.console.width // (_WIDTH + 1)
        return dict(list(cells.items())[:room])

    def _print(self, text: str, style: str | None = None) -> None:
        # Whole lines, whatever the width: a log is searched by line.
        self.console.print(text, style=style, soft_wrap=True, highlight=False, markup=False)


@final
class _Printer(logging.Handler):
    """Prints every message once: the runs of a series compute alike."""

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


def _rate(images: float) -> str:
    return f"{images:,.0f}" if images >= 10 else f"{images:.1f}"


def _value(record: Mapping[str, Any], name: str) -> float | None:
    """A metric or a fidelity of an epoch's record or an evaluation."""
    return ((record["metrics"] or {}) | (record["fidelity"] or {})).get(name)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if value >= 10 else f"{value:.4f}"
