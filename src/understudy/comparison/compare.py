"""Compare methods with a control under one budget over several seeds, with a verdict for each.

A comparison directory holds `comparison.json`, whose form is `Comparison`, a run directory
`<arm>/seed<n>` for every arm and seed, and `reasons.json`: why keys that were `auto` have their
values, which are the same for all arms and seeds. It may be interrupted and continued: finished
runs are kept. An arm that diverges is not trained with later seeds, and its verdict says so. Delete
the run that diverged to train it again. An arm of which a run fails has no verdict either; the same
command continues that run, and the others go on meanwhile.

Several runs may be trained at once, by workers of this process (`jobs`) or by further processes, of
this and other machines, that are started by the same command on the same directory: a run that
another process writes is left to it. Each waits until all runs are done, and writes the result.

All arms learn from one teacher. Its outputs are stored in `bank`, by whichever run first meets a
view, and read by all others, unless the recipe names a bank of its own.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from understudy import files, tasks
from understudy.comparison.arms import (
    CONTROL,
    Job,
    check_seeds,
    checked,
    seeded,
)
from understudy.comparison.arms import named as arms_named
from understudy.comparison.jobs import count as job_count
from understudy.comparison.jobs import forking
from understudy.comparison.jobs.agenda import Agenda, in_turn
from understudy.comparison.jobs.count import JobCount
from understudy.comparison.jobs.forecast import Forecast
from understudy.comparison.jobs.table import JobsTable
from understudy.comparison.jobs.worker_program import WorkerSetup
from understudy.comparison.jobs.workers import train_at_once
from understudy.comparison.judged_runs import judge
from understudy.comparison.result import FILE, Comparison, read_comparison
from understudy.comparison.student_verdicts import tell_students
from understudy.config.limits import AUTO
from understudy.config.naming import named
from understudy.config.recipe import Recipe
from understudy.distillation.device_names import find_device
from understudy.errors import Busy, Interrupted, RecipeError, RunError, Unfinished
from understudy.experiment import defaults
from understudy.experiment.balance import adopted_weights
from understudy.experiment.call import Call, call_of
from understudy.experiment.callback import Callback
from understudy.experiment.images import ImagesOfRecipes
from understudy.experiment.own_images import given
from understudy.experiment.progress import displayed
from understudy.experiment.run_directory import Run
from understudy.experiment.taken import difference_of, free_beside
from understudy.tasks import Task
from understudy.training import hardware

LOGGER = logging.getLogger("understudy")

REASONS = "reasons.json"
"""File of a comparison directory: key of the recipe that was `auto` → why it has its value."""


def compare(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2),
    out: str | Path | None = None,
    bank: str | Path | None = None,
    resume: bool = False,
    device: str | None = None,
    jobs: int | None = 1,
    threads: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
    images: ImagesOfRecipes | None = None,
) -> Comparison:
    """Run a control and every arm over every seed, and judge each arm against the control.

    Without a `bank.path` in the recipe, arms whose methods read what `bank.features` names share a
    bank in the comparison directory, if half of the free disk holds it. Its runs are the same to
    the bit as without one.

    Args:
        recipe: Name of a shipped recipe, path of a YAML file, dictionary, or `Recipe`. The
            hyper-parameters of its methods are used wherever an arm names them.
        overrides: Keys of the recipe to replace, such as `{"training.epochs": 1}`; see
            `Recipe.load`.
        data: Images of a program, as for `train`; the runs are then trained in turn.
        methods: Arms: a method's name or label, or several joined by `+`; default: the recipe's
            methods, each by itself.
        seeds: One run of every arm per seed; three or more give an interval.
        out: Comparison directory; default `runs/<recipe.name>`, or of a recipe without a name
            `runs/<student>_from_<teacher>_compared`. Finished runs in it are kept and interrupted
            ones continued, with or without `resume`.
        bank: Folder of the bank that the arms share; default: `bank` in the comparison directory.
        resume: Continue an interrupted comparison; refuse if there is none in `out`.
        device: Name of a device, such as `cpu` or `cuda:1`; None for a GPU, or else the CPU.
        jobs: Runs at once. With more than one, each is trained in a process of its own, one on
            every GPU or several, and `callback` is told of `series`, `epoch` and `end` alone. None,
            the default of the command line: one for every GPU, or for every two cores if the
            student is small. The result does not depend on it: on a CPU, not in a single bit.
        threads: Threads of the CPU for each run; default: one if the student is small, otherwise
            one for every core, unless `OMP_NUM_THREADS` is set.
        progress: Print progress and messages, as the command line does.
        callback: Called with the progress of every run.
        images: Has read images of the recipe already; used where one process trains.

    Returns:
        The measurements and verdicts, which `comparison.json` in the directory holds too. Runs that
        failed are listed under `failed` of their arm.

    Raises:
        RecipeError: The recipe is wrong, or there is no method, no teacher, or no seed.
        RunError: The directory holds another comparison, runs on other images, or with `resume`
            nothing to continue.
        Unfinished: A run of the control failed, so that no arm can be judged.
        UnderstudyError: An arm cannot be built, which is found before any is trained.
        Diverged: The control did.
        Interrupted: SIGINT or SIGTERM arrived; the state was saved.

    Example:
        teacher = {"teacher.weights": "runs/teacher"}
        comparison = understudy.compare("fashion/demo", teacher, methods=["kd", "lshfm", "kd+nd"])
        print(comparison.table())
    """
    if data is not None:
        check_in_turn(jobs)
        with given(Recipe.load(recipe, overrides), data) as prepared:
            return compare(
                prepared,
                methods=methods,
                seeds=seeds,
                out=out,
                bank=bank,
                resume=resume,
                device=device,
                threads=threads,
                progress=progress,
                callback=callback,
                images=images,
            )
    recipe = named(Recipe.load(recipe, overrides), "comparison")
    task = tasks.find(recipe.task, recipe.training)
    _check_complete(recipe)
    check_seeds(seeds)
    find_device(device)
    root = Path(out) if out else Path("runs") / recipe.name
    _check_place(root, resume=resume)
    if (begun := _begun(root)) is not None:
        recipe = defaults.adopted(recipe, begun)
    arms = {name: _known(root, name, arm) for name, arm in arms_named(recipe, methods).items()}
    _claim(root, recipe, begun)
    if jobs != 1 and not hardware.is_grouped():
        forking.load_ahead()
    images = images or ImagesOfRecipes()
    runs = {(name, seed): _run(root, name, seed) for seed in seeds for name in arms}
    count, chosen = JobCount(1, [], ""), list[str]()
    if unfinished := {name: arm for name, arm in arms.items() if not _finished(root, name, seeds)}:
        of_first = images(replace(recipe, seed=seeds[0]))
        folder = Path(bank) if bank else root / "bank"
        built = checked(unfinished, folder, seed=seeds[0], images=of_first, device=device)
        del of_first
        arms |= built.arms
        recipe = defaults.adopted(recipe, next(iter(built.arms.values())))
        chosen = _kept_reasons(root, built.reasons, recipe, built.arms)
        count = job_count.choose(
            jobs, threads, built.needs, device=device, runs=list(runs.values())
        )
    _call(recipe, methods, seeds, bank, threads).write(root)
    agenda = Agenda(
        [Job(name, seed, seeded(arms[name], name, seed), run) for (name, seed), run in runs.items()]
    )
    setup = WorkerSetup(device, threads or "auto")
    with _advising(root):
        if count.jobs == 1:
            _train_in_turn(
                agenda, count, setup, images, chosen, progress=progress, callback=callback
            )
        else:
            images.forget()  # every worker reads its own, and callers keep this object
            _train_at_once(agenda, count, setup, chosen, progress=progress, callback=callback)
    return _concluded(recipe, arms, agenda, seeds, root, task=task)


@contextmanager
def _advising(root: Path) -> Iterator[None]:
    """Let an error say how the comparison is continued, not the single run."""
    try:
        yield
    except Interrupted as error:
        raise Interrupted(files.continued_by(str(error), root)) from error


def check_in_turn(jobs: int | None) -> None:
    """Refuse several runs at once on images that only this process has.

    Raises:
        RecipeError: As above.
    """
    if jobs not in (None, 1):
        raise RecipeError(
            f"The images of data= are in this process alone, so that its runs are trained in turn: "
            f"leave jobs={jobs} out, or write the images into folders for data.source=folder."
        )


def _check_complete(recipe: Recipe) -> None:
    if not (recipe.teacher.name or recipe.teacher.weights):
        raise RecipeError("A comparison needs a teacher: give --teacher.name or a recipe with one.")


def _check_place(root: Path, *, resume: bool) -> None:
    """Refuse to continue what never began."""
    files.refuse_address(root, "--out")
    if resume and not any(root.glob("*/seed*/recipe.yaml")):
        raise RunError(f"There is no comparison in {root} to continue; start without --resume.")


def _claim(root: Path, recipe: Recipe, begun: Recipe | None) -> None:
    """Refuse to mix two comparisons in one directory."""
    before, file = _called(root), root / FILE
    if before and begun:
        before = defaults.adopted(before, begun)
    digest = before.digest if before else recipe.digest
    digest = read_comparison(root)["recipe_digest"] if file.is_file() else digest
    if digest != recipe.digest:
        what = difference_of(before, recipe) if before else ""
        raise RunError(
            f"{root} holds a comparison by another recipe "
            f"({what or f'digest {digest} there, {recipe.digest} here'}); choose another --out, "
            f"such as --out {free_beside(root)}."
        )


def _called(root: Path) -> Recipe | None:
    """Return the recipe that the comparison of a directory was called with; None without one."""
    call = call_of(root)
    recipe = call.arguments.get("recipe") if call and call.function == "compare" else None
    return Recipe.from_dict(recipe) if isinstance(recipe, dict) else None


def _call(
    recipe: Recipe,
    methods: Sequence[str],
    seeds: Sequence[int],
    bank: str | Path | None,
    threads: int | None,
) -> Call:
    """Return what `--resume` repeats; recipes of a directory may be executed, as this one is."""
    arguments = {
        "recipe": recipe.to_dict(),
        "methods": list(methods),
        "seeds": list(seeds),
        "bank": None if bank is None else str(bank),
        "threads": threads,
    }
    return Call("compare", arguments)


def _begun(root: Path) -> Recipe | None:
    """Return the recipe of a run of the comparison, or else of its call; None if none began."""
    runs = map(Run, sorted(root.glob("*/seed*")))
    return next((run.recipe for run in runs if run.begun), None) or _called(root)


def _known(root: Path, name: str, arm: Recipe) -> Recipe:
    """Return an arm with the weights that one of its runs began with, if they had to be found."""
    for run in map(Run, sorted((root / name).glob("seed*"))):
        if arm.weights != AUTO:
            return arm
        if run.begun:
            arm = adopted_weights(arm, run.recipe)
    return arm


def _kept_reasons(
    root: Path, reasons: Mapping[str, str], recipe: Recipe, arms: Mapping[str, Recipe]
) -> list[str]:
    """Write why keys that were `auto` have their values; return it in lines."""
    if reasons and hardware.is_first_process():
        files.write(root / REASONS, files.as_json(reasons, indent=1))
    # A weight of a method is a value of one arm: `kd+nd: methods.kd.weight`.
    values = recipe.flat() | {f"{arm}: {k}": x for arm in arms for k, x in arms[arm].flat().items()}
    return defaults.say(reasons, values)


def _finished(root: Path, arm: str, seeds: Sequence[int]) -> bool:
    return all(_run(root, arm, seed).finished for seed in seeds)


def _run(root: Path, arm: str, seed: int) -> Run:
    return Run(root / arm / f"seed{seed}")


def _train_in_turn(
    agenda: Agenda,
    count: JobCount,
    setup: WorkerSetup,
    images: ImagesOfRecipes,
    chosen: Sequence[str],
    *,
    progress: bool,
    callback: Callback | None,
) -> None:
    forecast = Forecast(agenda.jobs, 1)
    with displayed(progress, callback) as listener:
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
    count: JobCount,
    setup: WorkerSetup,
    chosen: Sequence[str],
    *,
    progress: bool,
    callback: Callback | None,
) -> None:
    forecast = Forecast(agenda.jobs, count.jobs)
    metric = tasks.find(agenda.jobs[0].recipe.task).headline
    printing = progress and hardware.is_first_process()
    table = JobsTable(agenda.jobs, forecast, metric=metric, progress=printing, callback=callback)
    with table.shown():
        _announce(agenda, count, forecast, chosen, callback)
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
        with files.sole_writer(root):
            files.write(root / FILE, files.as_json(result.to_dict(), indent=1))
            tell_students(result)
    except Busy:
        # Another process saw the last run end at the same time, and writes the same.
        LOGGER.debug(f"{root / FILE} is being written by another process.")
