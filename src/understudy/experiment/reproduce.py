"""Reproduce a published table: train its rows to their protocol, and put the figures side by side.

The directory holds what all tables share, and one folder for each table:

    teachers/<digest>           runs of teachers, by the digest of their recipe
    stages/<digest>/seed<n>     runs of first stages
    banks/<digest>              what a teacher gives for the views of some images
    <table>/<row>/seed<n>       runs of students
    <table>/reproduction.json   the result, in the form of `Reproduction`, written after every run
    <table>/reproduction.md     the same as a table

Runs go one seed of every row after the other. Within a seed, rows with a method and a published
figure come first, then students alone, then rows without a figure; the cheapest of each goes first,
where a teacher that is still to be trained counts as part of the row. The same command goes on
where it stopped, whatever stopped it.
"""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from understudy import files
from understudy.errors import (
    Diverged,
    Interrupted,
    NetworkError,
    OutOfMemory,
    RecipeError,
    RunError,
    ShapeError,
)
from understudy.experiment.budget import Budget, in_words, seconds_of
from understudy.experiment.callback import Callback, Callbacks
from understudy.experiment.progress import displayed
from understudy.experiment.reproduced_rows import Settings, Stage, folder_of
from understudy.experiment.reproduced_rows import rows as rows_of
from understudy.experiment.reproduction import FILE, Reproduction
from understudy.experiment.reproduction_order import Order
from understudy.experiment.reproduction_result import result_of
from understudy.experiment.run_costs import Costs, ImagesOfRecipes
from understudy.experiment.teacher_banks import with_bank
from understudy.experiment.train import train

LOGGER = logging.getLogger("understudy")

_OF_ONE_ROW = (Diverged, NetworkError, OutOfMemory, RecipeError, ShapeError)
"""Errors that end a row and not the others."""


def reproduce(
    table: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    rows: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2),
    budget: str | float | None = None,
    epochs_scale: float = 1.0,
    teachers: str | Path | None = None,
    out: str | Path | None = None,
    device: str | None = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> Reproduction:
    """Train the rows of a published table to their protocol, as many as fit into a budget.

    A call goes on where an earlier one in the same directory stopped, whatever stopped it: finished
    runs are kept and interrupted ones continued, to the same students. The teacher of a row is
    trained first, by the recipe that the table names, once for all tables in the directory.

    A row is marked as reproduced only if nothing but the machine differs from its published
    protocol; with fewer than three seeds only if a standard deviation was published.

    Args:
        table: Name of a shipped table, such as `cifar100/kd`, or path of a YAML file with rows.
        overrides: Keys of all recipes to replace, such as `{"data.root": "cifar"}`.
        rows: Names of rows, with `*` and `?`; default: all.
        seeds: One run of every row per seed, the first seed of all rows before the second.
        budget: Time that this call may spend, such as `10m`, or in seconds; default: no limit. What
            is predicted not to fit is left for another call, and a run that is under way at its
            end is saved.
        epochs_scale: Share of the published epochs to train.
        teachers: Folder with a file of weights or a run for every teacher, by its name, such as
            `resnet56.safetensors`; default: teachers are trained.
        out: Directory of all tables; default `runs/reproduce`.
        device: `cpu`, or None for the best device of this machine.
        progress: Print progress and messages, as the command line does.
        callback: Called with the progress of every run.

    Returns:
        The rows beside their published figures, which `<out>/<table>/reproduction.json` holds too.

    Raises:
        NameNotFound: There is no such table, or no such row.
        RecipeError: An argument or a recipe makes no sense, or a teacher cannot be had.
        RunError: The directory holds runs of other recipes, or another process writes it.
        DataError: The images cannot be had.
        Interrupted: SIGINT or SIGTERM arrived; the state was saved.

    Example:
        table = understudy.reproduce(
            "cifar100/kd", {"data.root": "cifar"}, rows=["resnet56_*"], budget="10m"
        )
        print(table.to_table())
    """
    watch = Budget(None if budget is None else seconds_of(budget))
    if "RANK" in os.environ:
        raise RecipeError("`reproduce` trains in one process: start it without torchrun.")
    _check_seeds(seeds)
    root = Path(out) if out else Path("runs") / "reproduce"
    files.refuse_address(root, "--out")
    settings = Settings(
        root, overrides or {}, epochs_scale, Path(teachers) if teachers is not None else None
    )
    chosen = rows_of(str(table), rows, settings)
    images = ImagesOfRecipes()
    with files.sole_writer(folder_of(str(table), root)):
        order = Order(chosen, seeds, Costs(images, device))
        _check_same(order)
        work = _Work(str(table), settings, seeds, order, images, watch, device)
        with displayed(progress, callback) as listener:
            work.run(listener)
        return work.write()


def _check_seeds(seeds: Sequence[int]) -> None:
    if not seeds or len(set(seeds)) < len(seeds):
        raise RecipeError(
            f"The seeds are {', '.join(map(str, seeds)) or 'none'}; name at least one, each once."
        )


def _check_same(order: Order) -> None:
    """Refuse a directory with runs of other recipes before anything is trained.

    Raises:
        RunError: A run has another digest.
    """
    for stage in order.stages():
        if stage.run.begun and stage.run.recipe.digest != stage.recipe.digest:
            raise RunError(
                f"{stage.path} was made by another recipe (digest {stage.run.recipe.digest} there, "
                f"{stage.recipe.digest} here), such as by another --epochs-scale or other keys; "
                "choose another --out."
            )


@final
class _Work:
    """Trains the runs of an order one after the other, and writes the result after each."""

    def __init__(
        self,
        table: str,
        settings: Settings,
        seeds: Sequence[int],
        order: Order,
        images: ImagesOfRecipes,
        budget: Budget,
        device: str | None,
    ) -> None:
        self._table, self._settings, self._seeds = table, settings, seeds
        self._order, self._images = order, images
        self._budget, self._device = budget, device

    def run(self, listener: Callback | None) -> None:
        """Train what fits into the budget.

        Raises:
            Interrupted: A signal arrived; the state was saved, and so is the result so far.
        """
        self._announce()
        if listener:
            listener.series(sum(not stage.run.finished for stage in self._order.stages()))
        callback = Callbacks(self._budget, *([listener] if listener else []))
        while (stage := self._order.next(self._budget.left)) and not self._budget.stopped:
            self._train(stage, callback)
            self.write()
        entries = self._order.entries
        left = sum(not entry.stage.run.finished for entry in entries)
        if self._budget.left < float("inf") and left:
            LOGGER.info(
                f"{left} of {len(entries)} runs are left after the budget; the same command goes "
                "on with them."
            )

    def write(self) -> Reproduction:
        """Write `reproduction.json` and `reproduction.md`; return what they hold."""
        folder = folder_of(self._table, self._settings.root)
        limited = self._budget.left < float("inf")
        result = result_of(self._table, self._settings, self._seeds, self._order, timed=limited)
        files.write(folder / FILE, files.as_json(result.to_dict(), indent=1))
        files.write((folder / FILE).with_suffix(".md"), result.markdown())
        return result

    def _announce(self) -> None:
        entries = self._order.entries
        left = [entry for entry in entries if not entry.stage.run.finished]
        words = f"{self._table}: {len(left)} of {len(entries)} runs are left"
        if left and self._budget.left < float("inf"):
            seconds = self._order.predicted_in_all()
            spend = in_words(max(self._budget.left, 0.0))
            words += f", about {in_words(seconds)}; {spend} are to spend"
        LOGGER.info(f"{words}.")

    def _train(self, stage: Stage, callback: Callback) -> None:
        began, whole = time.monotonic(), not stage.run.begun
        try:
            images = self._images(stage.recipe)
            recipe = with_bank(stage.recipe, self._settings.root / "banks", images)
            run = train(
                recipe,
                out=stage.path,
                resume=stage.run.begun,
                device=self._device,
                callback=callback,
                threads="auto",
                images=images,
            )
        except _OF_ONE_ROW as error:
            LOGGER.warning(f"{stage.name} failed: {error} The other rows go on.")
            self._order.fail(stage, str(error))
        except Interrupted:
            if not self._budget.stopped:
                raise
            LOGGER.info(f"The budget is spent: {stage.name} is saved in {stage.path}.")
        else:
            self._order.end(stage, time.monotonic() - began if whole else run.seconds)
