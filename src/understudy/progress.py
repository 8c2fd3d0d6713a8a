"""Progress of a run: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from typing import Any, final

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from understudy.engine import Trainer

_ROWS = 12
"""Epochs the live table shows at once."""


@final
class Terminal:
    """Watches one run after another; leaves one line for every epoch that was evaluated."""

    def __init__(self, console: Console | None = None, *, headline: str = "top1") -> None:
        self.console = console or Console()
        self.headline = headline
        self._live: Live | None = None
        self._rows: list[dict[str, Any]] = []
        self._shown = 0.0

    def start(self, trainer: Trainer, name: str) -> None:
        """Show a new run."""
        self.close()
        self.name, self._rows = name, []
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps, {task.fields[rate]:.0f} images/s"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._total = trainer.training.epochs * len(trainer.loader)
        self._task = self._bar.add_task(name, total=self._total, rate=0.0)
        if self.console.is_terminal:
            self._live = Live(self._view(), console=self.console, refresh_per_second=4)
            self._live.start()
        else:
            self.console.print(
                f"{name}: {trainer.training.epochs} epochs of {len(trainer.loader)} steps"
            )

    def step(self, trainer: Trainer) -> None:
        """Move the bar, at most four times a second."""
        if self._live is None or time.monotonic() - self._shown < 0.25:
            return
        here = trainer.position
        rate = here.images / max(here.seconds, 1e-9)
        done = here.epoch * len(trainer.loader) + here.step
        self._bar.update(self._task, completed=done, rate=rate)
        self._live.update(self._view())
        self._shown = time.monotonic()

    def epoch(self, record: dict[str, Any]) -> None:
        """Add a row, or print a line."""
        self._rows.append(record)
        if self._live is None:
            self.console.print("  " + "  ".join(_cells(record)), soft_wrap=True, highlight=False)
        if self._live is not None:
            self._bar.update(self._task, completed=record["step"])
            self._live.update(self._view())
        if record["step"] >= self._total:
            self.close()

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _view(self) -> Group:
        table = Table(box=None, pad_edge=False)
        shown = self._rows[-_ROWS:]
        for heading in _headings(shown):
            table.add_column(heading, justify="right")
        for record in shown:
            table.add_row(*(cell.rpartition(" ")[2] for cell in _cells(record)))
        return Group(table, self._bar)


def _headings(records: Sequence[dict[str, Any]]) -> list[str]:
    return [cell.rpartition(" ")[0] for cell in _cells(records[0])] if records else []


def _cells(record: dict[str, Any]) -> list[str]:
    """One `name value` for every column of an epoch."""
    cells = [f"epoch {record['epoch']}", f"lr {record['lr']:.2g}"]
    cells += [f"loss/{name} {value:.4g}" for name, value in record["losses"].items()]
    for part in ("metrics", "fidelity"):
        values = record[part] or {}
        cells += [f"{name} {value:.4g}" for name, value in values.items() if value is not None]
    return [*cells, f"images/s {record['images_per_second']:.0f}"]
