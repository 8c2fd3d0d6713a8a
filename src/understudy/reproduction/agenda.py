"""The runs of a reproduction as jobs, for one process or for several workers."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import final

from understudy.comparison.arms import Job
from understudy.comparison.jobs.schedule import Failure, Outcome
from understudy.config.recipe import Recipe
from understudy.errors import (
    BankError,
    DataError,
    Diverged,
    NetworkError,
    OutOfMemory,
    RecipeError,
    RunError,
    ShapeError,
)
from understudy.experiment.images import ImagesOfRecipes
from understudy.reproduction.budget import Budget
from understudy.reproduction.order import Order
from understudy.reproduction.rows import TEACHERS, Stage
from understudy.reproduction.teacher_banks import with_bank

LOGGER = logging.getLogger("understudy")

_OF_ONE_ROW = (Diverged, NetworkError, OutOfMemory, RecipeError, ShapeError)
"""Errors that end a row and not the others."""

_OF_ALL = {kind.__name__ for kind in (BankError, DataError, RunError)}
"""Errors that the other rows would meet as well."""


@final
class RowsAgenda:
    """Hands out the runs of an order within a budget, each with the bank of its teacher.

    Args:
        order: The runs.
        budget: What may be spent.
        images: Reads the images of a recipe.
        banks: Folder of all banks.
        write: Called whenever a run has ended.
    """

    def __init__(
        self,
        order: Order,
        budget: Budget,
        images: ImagesOfRecipes,
        banks: Path,
        write: Callable[[], object],
    ) -> None:
        self._order, self._budget, self._images = order, budget, images
        self._banks, self._write = banks, write
        self._stages: dict[Path, Stage] = {}
        self._began: dict[Path, float] = {}
        self.jobs = [_job(stage, stage.recipe) for stage in order.stages()]

    @property
    def left(self) -> list[Job]:
        """Jobs that still take time, whether they fit into the budget or not."""
        paths = self._order.left()
        return [job for job in self.jobs if job.run.path in paths and not job.over]

    @property
    def waits(self) -> bool:
        """True if a job is left that fits into the budget and can be handed out, now or later."""
        return not self._budget.stopped and self._order.waits(self._budget.left)

    def next(self) -> Job | None:
        """Take the next job that fits into the budget; None if none can be begun at present."""
        while not self._budget.stopped and (stage := self._order.next(self._budget.left)):
            try:
                # The teacher is trained by now.
                recipe = with_bank(stage.recipe, self._banks, self._images(stage.recipe))
            except _OF_ONE_ROW as error:
                self._fail(stage, str(error))
                continue
            self._stages[stage.path] = stage
            if not stage.run.begun:
                self._began[stage.path] = time.monotonic()
            return _job(stage, recipe)
        return None

    def end(self, job: Job, outcome: Outcome) -> None:
        """Note what came of a job, and write the result.

        Raises:
            UnderstudyError: All other rows would meet the same error.
        """
        stage = self._stages.pop(job.run.path)
        began = self._began.pop(job.run.path, None)
        if outcome == "busy":
            self._order.postpone(stage)
        elif isinstance(outcome, Failure):
            if outcome.kind in _OF_ALL:
                raise outcome.error()
            self._fail(stage, outcome.reason)
        else:
            spent = None if began is None else time.monotonic() - began
            self._order.end(stage, spent or stage.run.seconds)
        self._write()

    def _fail(self, stage: Stage, reason: str) -> None:
        LOGGER.warning(f"{stage.name} failed: {reason} The other rows go on.")
        self._order.fail(stage, reason)


def _job(stage: Stage, recipe: Recipe) -> Job:
    """Return the job of a run: a row is an arm with its seeds, every teacher one of its own."""
    folder = stage.path.parent.name
    arm = stage.name if folder == TEACHERS else folder
    return Job(arm, recipe.seed, recipe, stage.run)
