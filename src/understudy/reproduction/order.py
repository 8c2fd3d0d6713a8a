"""The order in which the rows of a table are trained, and which of them a budget holds."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from understudy.errors import DataError, UnderstudyError
from understudy.reproduction.published import Published
from understudy.reproduction.rows import Row, Stage
from understudy.reproduction.run_costs import Costs, remaining

_LOOK_AGAIN = 5.0
"""Seconds until a run that another process trains is looked at again."""


@final
@dataclass(frozen=True)
class Entry:
    """A row and a seed.

    Attributes:
        row: The row.
        turn: Place of the seed among all that were asked for.
        stage: Its run.
    """

    row: Row
    turn: int
    stage: Stage

    @property
    def rank(self) -> int:
        """How much the row tells: a method and its figure, a student alone, or no figure."""
        published = Published.of(self.row.about, distilled=bool(self.row.recipe.methods))
        if published.figure is None:
            return 2
        return 0 if self.row.recipe.methods else 1


@final
class Order:
    """Hands out runs, the most informative ones first, as many as fit into what is left.

    It knows nothing of how runs are trained: `next` names one, and whoever trains it says by `end`
    or `fail` what came of it.

    Args:
        rows: Rows of the table.
        seeds: Seeds of every row.
        costs: Work and seconds of runs.

    Attributes:
        entries: All rows and seeds.
        failures: Run directory → why that run cannot be finished.
    """

    def __init__(self, rows: Sequence[Row], seeds: Sequence[int], costs: Costs) -> None:
        self.entries = [
            Entry(row, turn, row.stage(seed)) for turn, seed in enumerate(seeds) for row in rows
        ]
        self.failures: dict[Path, str] = {}
        self._costs = costs
        self._running: set[Path] = set()
        self._due: dict[Path, float] = {}
        for stage in self.stages():
            if stage.run.finished:
                costs.end(stage, stage.run.seconds)

    def stages(self) -> list[Stage]:
        """Return all runs, teachers and first stages included, each once."""
        each = {stage.path: stage for e in self.entries for stage in _with_needed(e.stage)}
        return list(each.values())

    def next(self, left: float) -> Stage | None:
        """Take the run to train next; None if nothing fits, or everything waits for others.

        Args:
            left: Seconds that may be spent.
        """
        stage = self._first(left)
        if stage is None or self._due.get(stage.path, 0.0) > time.monotonic():
            return None
        self._running.add(stage.path)
        return stage

    def waits(self, left: float) -> bool:
        """Return True if a run can be taken, at once or when another process is done with it."""
        return self._first(left) is not None

    def left(self) -> set[Path]:
        """Return the directories of runs under way, and of those that rows still need.

        A row needs none once a run of it, or one before it, failed or diverged.
        """
        ruled_out = {
            entry.row.name
            for entry in self.entries
            for stage in _with_needed(entry.stage)
            if stage.path in self.failures or stage.run.diverged
        }
        needed = {
            stage.path
            for entry in self.entries
            if not (entry.row.name in ruled_out or entry.stage.run.finished)
            for stage in entry.stage.unfinished()
        }
        return needed | self._running

    def postpone(self, stage: Stage) -> None:
        """Look at a run again after some seconds, which another process is training."""
        self._running.discard(stage.path)
        self._due[stage.path] = time.monotonic() + _LOOK_AGAIN

    def _first(self, left: float) -> Stage | None:
        """Return the first run that fits; one that was postponed after all others."""
        now, later = time.monotonic(), None
        for entry in self._waiting():
            missing = entry.stage.unfinished()
            if any(stage.path in self._running for stage in missing):
                continue
            if left != float("inf") and self.predicted(entry) > left:
                continue
            if self._due.get(missing[0].path, 0.0) <= now:
                return missing[0]
            later = later or missing[0]
        return later

    def end(self, stage: Stage, seconds: float) -> None:
        """Note that a run is finished, and how long it took if it was trained in one go."""
        self._running.discard(stage.path)
        self._costs.end(stage, seconds)

    def fail(self, stage: Stage, reason: str) -> None:
        """Note that a run cannot be finished: its row is not trained with later seeds."""
        self._running.discard(stage.path)
        self.failures[stage.path] = reason

    def failure(self, row: Row) -> str:
        """Return why a row cannot be finished; empty if nothing failed."""
        stages = [s for e in self.entries if e.row is row for s in _with_needed(e.stage)]
        return next((self.failures[s.path] for s in stages if s.path in self.failures), "")

    def predicted(self, entry: Entry) -> float:
        """Return the seconds that a row and seed still takes, with all that it needs."""
        alike = [other.stage for other in self.entries if other.row is entry.row]
        *needed, own = _with_needed(entry.stage)
        missing = {stage.path for stage in entry.stage.unfinished()}
        seconds = sum(self._costs.seconds(stage) for stage in needed if stage.path in missing)
        return seconds + (self._costs.seconds(own, alike) if own.path in missing else 0.0)

    def predicted_in_all(self) -> float:
        """Return the seconds that all rows and seeds still take; what they share counts once."""
        seconds: dict[Path, float] = {}
        for entry in self._waiting():
            alike = [other.stage for other in self.entries if other.row is entry.row]
            for stage in entry.stage.unfinished():
                same = alike if stage is entry.stage else ()
                seconds[stage.path] = self._costs.seconds(stage, same)
        return sum(seconds.values())

    def _waiting(self) -> list[Entry]:
        """Return the entries that are not finished and did not fail, in their order."""
        costs = {}
        for place, entry in enumerate(self.entries):
            if entry.stage.run.finished or self.failure(entry.row):
                continue
            try:
                missing = entry.stage.unfinished()
                work = sum(self._costs.work(s.recipe) * remaining(s) for s in missing)
            except DataError:
                raise  # All rows would meet the same.
            except UnderstudyError as error:
                self.fail(entry.stage, str(error))
                continue
            costs[place] = (entry.turn, entry.rank, work, place)
        return [self.entries[place] for place in sorted(costs, key=costs.__getitem__)]


def _with_needed(stage: Stage) -> Iterator[Stage]:
    for needed in stage.after:
        yield from _with_needed(needed)
    yield stage
