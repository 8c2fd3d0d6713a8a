"""Train the arms of a comparison over its seeds, and judge them against the control.

A comparison directory holds `comparison.json`, whose form is `Comparison`, a run directory
`<arm>/seed<n>` for every arm and seed, and `reasons.json`: why keys that were `auto` have their
values, which are the same for all arms and seeds. It may be interrupted and continued: finished
runs are kept. An arm that diverges is not trained with later seeds, and its verdict says so. Delete
the run that diverged to train it again. An arm of which a run fails has no verdict either; the same
command continues that run, and the others go on meanwhile.

Several runs may be trained at once, by workers of this process (`jobs`) or by further processes, of
this and other machines, that are started by the same command on the same directory: a run that
another process writes is left to it. Each waits until all runs are done, and writes the result.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from understudy import files, locks, tasks
from understudy.checks.messages import unrepeated
from understudy.comparison.arms import CONTROL, Job, check_seeds, checked, seeded
from understudy.comparison.jobs import count as job_count
from understudy.comparison.jobs import forking
from understudy.comparison.jobs.agenda import Agenda, in_turn
from understudy.comparison.jobs.count import JobCount
from understudy.comparison.jobs.forecast import Forecast
from understudy.comparison.jobs.table import JobsTable
from understudy.comparison.jobs.worker_program import WorkerSetup
from understudy.comparison.jobs.workers import train_at_once
from understudy.comparison.judged_runs import judge
from understudy.comparison.place import Place
from understudy.comparison.result import FILE, Comparison
from understudy.comparison.student_verdicts import tell_students
from understudy.config.recipe import Recipe
from understudy.distillation.device_names import find_device
from understudy.errors import Busy, Interrupted, Unfinished
from understudy.experiment import defaults
from understudy.experiment.call import Call
from understudy.experiment.callback import Callback
from understudy.experiment.images import ImagesOfRecipes
from understudy.experiment.progress import displayed
from understudy.tasks import Task
from understudy.training import hardware

LOGGER = logging.getLogger("understudy")


@final
@dataclass(frozen=True)
class Execution:
    """How the runs of a comparison are computed, which does not change what comes of them.

    Attributes:
        device: Name of a device; None for a GPU, or else the CPU.
        jobs: Runs at once; None for as many as the machine is good for.
        threads: Threads of the CPU for each run; None for a choice by the student's size.
        progress: Print progress and messages.
        callback: Called with the progress of every run.
    """

    device: str | None = None
    jobs: int | None = 1
    threads: int | None = None
    progress: bool = False
    callback: Callback | None = None


@unrepeated()
def train_arms(
    recipe: Recipe,
    arms_of: Callable[[Recipe], Mapping[str, Recipe]],
    place: Place,
    arguments: Mapping[str, Any],
    *,
    seeds: Sequence[int],
    bank: Path,
    resume: bool,
    how: Execution,
    images: ImagesOfRecipes | None = None,
) -> Comparison:
    """Train all arms over all seeds that are not finished yet, and judge them.

    Args:
        recipe: Recipe of the comparison, with a name.
        arms_of: Returns the arms of that recipe, the control first.
        place: Directory.
        arguments: What `--resume` repeats besides the recipe, for `call.json`.
        seeds: One run of every arm per seed.
        bank: Folder of the bank that the arms share, if they have a teacher.
        resume: Refuse if nothing began in the directory.
        how: How the runs are computed.
        images: Has read images of the recipe already; used where one process trains.

    Raises:
        UnderstudyError: As for `compare`.
    """
    task = tasks.find(recipe.task, recipe.training)
    check_seeds(seeds)
    find_device(how.device)
    place.check(resume=resume)
    if (begun := place.begun()) is not None:
        recipe = defaults.adopted(recipe, begun)
    arms = {name: place.known(name, arm) for name, arm in arms_of(recipe).items()}
    place.claim(recipe, begun)
    if how.jobs != 1 and not hardware.is_grouped():
        forking.load_ahead()
    images = images or ImagesOfRecipes()
    runs = {(name, seed): place.run(name, seed) for seed in seeds for name in arms}
    count, chosen = JobCount(1, [], ""), list[str]()
    if unfinished := {name: arm for name, arm in arms.items() if not place.finished(name, seeds)}:
        of_first = images(replace(recipe, seed=seeds[0]))
        built = checked(unfinished, bank, seed=seeds[0], images=of_first, device=how.device)
        del of_first
        arms |= built.arms
        recipe = defaults.adopted(recipe, next(iter(built.arms.values())))
        chosen = place.keep_reasons(built.reasons, recipe, built.arms)
        count = job_count.choose(
            how.jobs, how.threads, built.needs, device=how.device, runs=list(runs.values())
        )
    # Recipes of a directory may be executed, as this one is.
    Call(place.function, {"recipe": recipe.to_dict(), **arguments}).write(place.root)
    agenda = Agenda(
        [Job(name, seed, seeded(arms[name], name, seed), run) for (name, seed), run in runs.items()]
    )
    setup = WorkerSetup(how.device, how.threads or "auto")
    with _advising(place.root):
        if count.jobs == 1:
            _train_in_turn(agenda, count, setup, images, chosen, how)
        else:
            images.forget()  # every worker reads its own, and callers keep this object
            _train_at_once(agenda, task, count, setup, chosen, how)
    return _concluded(recipe, arms, agenda, seeds, place.root, task=task)


@contextmanager
def _advising(root: Path) -> Iterator[None]:
    """Let an error say how the comparison is continued, not the single run."""
    try:
        yield
    except Interrupted as error:
        raise Interrupted(files.continued_by(str(error), root)) from error


def _train_in_turn(
    agenda: Agenda,
    count: JobCount,
    setup: WorkerSetup,
    images: ImagesOfRecipes,
    chosen: Sequence[str],
    how: Execution,
) -> None:
    forecast = Forecast(agenda, 1)
    with displayed(how.progress, how.callback) as listener:
        _announce(agenda, count, forecast, chosen, listener)
        in_turn(
            agenda,
            images,
            device=setup.device,
            threads=setup.threads,
            callback=listener,
            forecast=forecast,
        )


def _train_at_once(
    agenda: Agenda,
    task: Task,
    count: JobCount,
    setup: WorkerSetup,
    chosen: Sequence[str],
    how: Execution,
) -> None:
    forecast = Forecast(agenda, count.jobs)
    printing = how.progress and hardware.is_first_process()
    table = JobsTable(agenda.jobs, forecast, task=task, progress=printing, callback=how.callback)
    with table.shown():
        _announce(agenda, count, forecast, chosen, how.callback)
        train_at_once(agenda, setup.of_workers(count.jobs, count.gpus), table)


def _announce(
    agenda: Agenda,
    count: JobCount,
    forecast: Forecast,
    chosen: Sequence[str],
    callback: Callback | None,
) -> None:
    """Say what is about to be trained, what was chosen for it, and how long it takes."""
    if callback:
        callback.series(len(agenda.jobs))
    for line in chosen:
        LOGGER.info(line)
    if count.reason:
        LOGGER.info(count.reason)
        forecast.say_before()


def _concluded(
    recipe: Recipe,
    arms: Mapping[str, Recipe],
    agenda: Agenda,
    seeds: Sequence[int],
    root: Path,
    *,
    task: Task,
) -> Comparison:
    """Judge the runs, and write the result.

    Raises:
        Unfinished: A run of the control failed.
    """
    for seed in seeds:
        agenda.check_same(seed)
    failures = agenda.missing()
    for (arm, seed), reason in failures.items():
        if arm == CONTROL:
            raise Unfinished(
                f"The control failed with seed {seed}, and without it no arm can be judged: "
                f"{reason} What is finished is kept; the same command continues the rest."
            )
    runs = agenda.ended()
    metric = task.judged_by(runs[CONTROL][0].evaluation["metrics"])
    result = judge(recipe, arms, runs, failures, seeds=seeds, root=root, metric=metric)
    if hardware.is_first_process():
        _write(root, result)
    return result


def _write(root: Path, result: Comparison) -> None:
    try:
        with locks.sole_writer(root):
            files.write(root / FILE, files.as_json(result.to_dict(), indent=1))
            tell_students(result)
    except Busy:
        # Another process saw the last run end at the same time, and writes the same.
        LOGGER.debug(f"{root / FILE} is being written by another process.")
