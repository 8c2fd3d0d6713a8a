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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from understudy import files, locks, tasks
from understudy.checks.messages import unrepeated
from understudy.comparison.arms import Needs, check_seeds
from understudy.comparison.jobs import count as job_count
from understudy.comparison.jobs.agenda import in_turn
from understudy.comparison.jobs.forecast import Forecast
from understudy.comparison.jobs.table import JobsTable
from understudy.comparison.jobs.worker_program import WorkerSetup
from understudy.comparison.jobs.workers import train_at_once
from understudy.config.schema import plain
from understudy.errors import Interrupted, RecipeError, RunError
from understudy.experiment.call import Call, WrittenAtStart
from understudy.experiment.callback import Callback, Callbacks
from understudy.experiment.images import ImagesOfRecipes
from understudy.experiment.progress import displayed
from understudy.experiment.run_time import in_words
from understudy.reproduction.agenda import RowsAgenda
from understudy.reproduction.budget import Budget, seconds_of
from understudy.reproduction.order import Order
from understudy.reproduction.result import FILE, Reproduction
from understudy.reproduction.rows import Settings, folder_of
from understudy.reproduction.rows import rows as rows_of
from understudy.reproduction.run_costs import Costs
from understudy.reproduction.summary import result_of

LOGGER = logging.getLogger("understudy")

_AGAIN = "give the same command again, which goes on"
"""Advice where the disk is full: what was written last may be missing."""


@unrepeated()
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
    jobs: int = 1,
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
        jobs: Runs at once. More than one are trained in processes of their own, one on each GPU,
            or each with one thread on a CPU if its student is small.
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
    if not seeds:
        raise RecipeError("There is no seed to train with: name at least one by --seeds.")
    check_seeds(seeds)
    if jobs < 1:
        raise RecipeError(f"--jobs cannot be {jobs}: at least one run is trained at a time.")
    root = Path(out) if out else Path("runs") / "reproduce"
    files.refuse_address(root, "--out")
    settings = Settings(
        root, overrides or {}, epochs_scale, Path(teachers) if teachers is not None else None
    )
    chosen = rows_of(str(table), rows, settings)
    images = ImagesOfRecipes()
    folder = folder_of(str(table), root)
    with locks.sole_writer(folder):
        order = Order(chosen, seeds, Costs(images, device))
        _check_same(order)
        call = _call(str(table), settings, rows, seeds)
        work = _Work(str(table), settings, seeds, order, watch)
        try:
            if jobs == 1:
                with displayed(progress, callback) as listener:
                    work.announce()
                    listeners = [listener] if listener else []
                    watching = Callbacks(watch, WrittenAtStart(call, folder), *listeners)
                    work.in_turn(images, device, watching)
            else:
                call.write(folder)
                work.at_once(jobs, images, device, progress=progress, callback=callback)
        except Interrupted as error:
            advice = files.continued_by(str(error), folder)
            if not watch.stopped:
                raise Interrupted(advice) from error
            LOGGER.info(f"The budget is spent. {advice}")
        work.say_what_is_left()
        return work.write()


def _call(table: str, settings: Settings, rows: Sequence[str], seeds: Sequence[int]) -> Call:
    """Return what `--resume` repeats; the budget is spent anew by every call."""
    arguments = {
        "table": table,
        "overrides": plain(dict(settings.overrides)),
        "rows": list(rows),
        "seeds": list(seeds),
        "epochs_scale": settings.share,
        "teachers": None if settings.teachers is None else str(settings.teachers),
        "out": str(settings.root),
    }
    return Call("reproduce", arguments)


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
    """Trains the runs of an order, and writes the result after each."""

    def __init__(
        self, table: str, settings: Settings, seeds: Sequence[int], order: Order, budget: Budget
    ) -> None:
        self._table, self._settings, self._seeds = table, settings, seeds
        self._order, self._budget = order, budget

    def in_turn(self, images: ImagesOfRecipes, device: str | None, listener: Callback) -> None:
        """Train what fits into the budget, one run after the other.

        Raises:
            Interrupted: A signal arrived; the state was saved.
        """
        agenda = self.agenda(images)
        listener.series(sum(not job.run.finished for job in agenda.jobs))
        in_turn(agenda, images, device=device, threads="auto", callback=listener)

    def at_once(
        self,
        jobs: int,
        images: ImagesOfRecipes,
        device: str | None,
        *,
        progress: bool,
        callback: Callback | None,
    ) -> None:
        """Train what fits into the budget, several runs at once in processes of their own.

        Raises:
            Interrupted: A signal arrived; the runs under way were saved.
        """
        agenda = self.agenda(images)
        first = agenda.jobs[0].recipe
        task = tasks.find(first.task, first.training)
        forecast = Forecast(agenda, jobs)
        table = JobsTable(agenda.jobs, forecast, task=task, progress=progress, callback=callback)
        count = job_count.choose(jobs, None, Needs(0, 0), device=device, runs=[])
        setups = WorkerSetup(device, "auto").of_workers(jobs, count.gpus)
        with table.shown(), self._budget.watched():
            self.announce()
            train_at_once(agenda, setups, table)

    def agenda(self, images: ImagesOfRecipes) -> RowsAgenda:
        """Return the runs as jobs."""
        banks = self._settings.root / "banks"
        return RowsAgenda(self._order, self._budget, images, banks, self.write)

    def write(self) -> Reproduction:
        """Write `reproduction.json` and `reproduction.md`; return what they hold."""
        folder = folder_of(self._table, self._settings.root)
        limited = self._budget.left < float("inf")
        result = result_of(self._table, self._settings, self._seeds, self._order, timed=limited)
        content = files.as_json(result.to_dict(), indent=1)
        files.write(folder / FILE, content, again=_AGAIN)
        files.write((folder / FILE).with_suffix(".md"), result.markdown(), again=_AGAIN)
        return result

    def announce(self) -> None:
        """Say what is left, and how long it takes if there is a budget."""
        entries = self._order.entries
        left = [entry for entry in entries if not entry.stage.run.finished]
        words = f"{self._table}: {len(left)} of {len(entries)} runs are left"
        if left and self._budget.left < float("inf"):
            seconds = self._order.predicted_in_all()
            spend = in_words(max(self._budget.left, 0.0))
            words += f", about {in_words(seconds)} one after the other; {spend} are to spend"
        LOGGER.info(f"{words}.")

    def say_what_is_left(self) -> None:
        """Say what the budget did not hold."""
        entries = self._order.entries
        left = sum(not entry.stage.run.finished for entry in entries)
        if self._budget.left < float("inf") and left:
            LOGGER.info(
                f"{left} of {len(entries)} runs are left after the budget; the same command goes "
                "on with them."
            )
