"""Train a network by a recipe: a teacher, a control, or a student that mimics a teacher."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from understudy import tasks
from understudy.config.limits import Count
from understudy.config.naming import named
from understudy.config.recipe import Recipe
from understudy.config.schema import convert
from understudy.data import lost_workers_explained
from understudy.distillation.device_names import find_device
from understudy.distillation.wire import check_methods
from understudy.errors import Diverged, RecipeError, RunError
from understudy.experiment import defaults
from understudy.experiment.balance import adopted_weights
from understudy.experiment.callback import Callback
from understudy.experiment.extension import extended
from understudy.experiment.images import Images
from understudy.experiment.own_images import given
from understudy.experiment.progress import displayed
from understudy.experiment.run_directory import Run
from understudy.experiment.runner import Runner
from understudy.experiment.taken import claim
from understudy.files import refuse_address
from understudy.locks import sole_writer
from understudy.training import hardware
from understudy.training.missing_operations import missing_operations_explained
from understudy.training.threads import ThreadChoice, restored


def distill(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    out: str | Path | None = None,
    resume: bool = False,
    extend: int | None = None,
    device: str | None = None,
    progress: bool = False,
    callback: Callback | None = None,
    profile: bool = False,
    threads: ThreadChoice = None,
    images: Images | None = None,
) -> Run:
    """Train a student by the methods of a recipe.

    Args:
        recipe: Name of a shipped recipe, path of a YAML file, dictionary, or `Recipe`.
        overrides: Keys of the recipe to replace, such as `{"training.epochs": 1}`; see
            `Recipe.load`.
        data: Images of a program, in place of those that the recipe names: a dataset of `(image,
            label)`, a pair of arrays, or a tuple of the training, test and validation images; see
            `data.own_data`. A run is continued with the same data.
        out: Run directory; default `runs/<recipe.name>`; a recipe without a name is called after
            what it is, such as `resnet18_from_resnet50_lshfm`.
        resume: Continue an interrupted run exactly where it was saved.
        extend: As for `train`.
        device: Name of a device, such as `cpu` or `cuda:1`; None for a GPU, or else the CPU.
        progress: Print progress and messages, as the command line does.
        callback: Called with the progress.
        profile: Measure the time of each part of some steps; see `train`.
        threads: Threads of the CPU; see `train`.
        images: Training and test images of the recipe, if they are loaded already.

    Returns:
        The finished run: `run.evaluation` holds the metrics, `run.student()` the network.

    Raises:
        RecipeError: The recipe is wrong, or names no method or no teacher.
        RunError: The directory holds another run, nothing to resume, another process writes it, or
            the disk is full.
        Diverged: A loss became NaN or infinite, now or when it was last trained; the last good
            state is kept.
        Interrupted: SIGINT or SIGTERM arrived; the state was saved.
        OutOfMemory: A step does not fit into memory in any number of parts.
        UnderstudyError: Something the recipe names is missing or does not fit together.

    Example:
        teacher = understudy.train("fashion/teacher", out="runs/teacher", progress=True)
        run = understudy.distill("fashion/demo", {"teacher.weights": str(teacher.path)})
        student = run.student()
    """
    loaded = Recipe.load(recipe, overrides)
    if not loaded.each_method or not loaded.each_teacher:
        raise RecipeError(
            "Distilling needs a teacher and a method: give --teacher.name and --method, "
            "or use `understudy train` for a control."
        )
    return train(
        loaded,
        data=data,
        out=out,
        resume=resume,
        extend=extend,
        device=device,
        progress=progress,
        callback=callback,
        profile=profile,
        threads=threads,
        images=images,
    )


def train(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    out: str | Path | None = None,
    resume: bool = False,
    extend: int | None = None,
    device: str | None = None,
    progress: bool = False,
    callback: Callback | None = None,
    profile: bool = False,
    threads: ThreadChoice = None,
    images: Images | None = None,
) -> Run:
    """Execute a recipe: train a teacher, a control, or a student by methods.

    Args:
        recipe: Name of a shipped recipe, path of a YAML file, dictionary, or `Recipe`.
        overrides: Keys of the recipe to replace, such as `{"training.epochs": 1}`; see
            `Recipe.load`.
        data: Images of a program, in place of those that the recipe names: a dataset of `(image,
            label)`, a pair of arrays, or a tuple of the training, test and validation images; see
            `data.own_data`. A run is continued with the same data.
        out: Run directory; default `runs/<recipe.name>`; a recipe without a name is called after
            what it is, such as `resnet18_from_resnet50_lshfm`.
        resume: Continue an interrupted run exactly where it was saved. A finished run is returned.
        extend: Train a finished run so many epochs longer, on the schedule of all its epochs; see
            `understudy.experiment.extension`.
        device: Name of a device, such as `cpu` or `cuda:1`; None for a GPU, or else the CPU.
        progress: Print progress and messages, as the command line does.
        callback: Called with the progress.
        profile: Measure the time of each part of some steps: a table in the log, and a trace in
            `profile.json`. It changes nothing in training.
        threads: Threads of the CPU, which decide the last digits of the result: a number; `auto`
            for one where the student is small and otherwise one for each core; or None for those of
            this process, or of a continued run those it began with. `OMP_NUM_THREADS` comes before
            all but a number.
        images: Training and test images of the recipe, if they are loaded already.

    Returns:
        The finished run: `run.evaluation` holds the metrics, `run.student()` the network.

    Raises:
        RecipeError: The recipe is wrong.
        RunError: The directory holds another run, nothing to resume, another process writes it, or
            the disk is full.
        Diverged: A loss became NaN or infinite, now or when it was last trained; the last good
            state is kept.
        Interrupted: SIGINT or SIGTERM arrived; the state was saved.
        OutOfMemory: A step does not fit into memory in any number of parts.
        UnderstudyError: Something the recipe names is missing or does not fit together.

    Example:
        run = understudy.train({"student": "resnet8", "training": {"epochs": 2}}, out="runs/small")
        print(run.evaluation["metrics"])
    """
    if data is not None:
        with given(Recipe.load(recipe, overrides), data) as prepared:
            return train(
                prepared,
                out=out,
                resume=resume,
                device=device,
                progress=progress,
                callback=callback,
                profile=profile,
                threads=threads,
                images=images,
                extend=extend,
            )
    loaded = named(Recipe.load(recipe, overrides))
    check_methods(loaded)
    find_device(device)
    run = Run(Path(out) if out else Path("runs") / loaded.name)
    if extend is not None:
        resume, extend = True, convert(Count, extend, "--extend")
    _check_place(run, resume=resume)
    explained, known = lost_workers_explained(), missing_operations_explained()
    writing, display = _writing(run, extend), displayed(progress, callback)
    with writing, restored(), explained, known, display as listener:
        if resume and run.begun:
            loaded = adopted_weights(defaults.adopted(loaded, run.recipe), run.recipe)
        claim(run, loaded, resume=resume)
        if extend is not None:
            loaded = extended(run, extend)
        if resume and run.finished:
            if listener:
                judged_by = tasks.find(loaded.task).judged_by(run.evaluation["metrics"])
                listener.end(loaded.name, judged_by, run.evaluation)
            return run
        if run.diverged:
            raise Diverged(
                f"{run.path} diverged: {run.diverged} Delete the directory to retrain, or change "
                "lr, weights or clip."
            )
        Runner.start(
            run.path,
            loaded,
            resume=resume,
            device=device,
            callback=listener,
            profile=profile,
            images=images,
            threads=threads,
        ).finish()
    return run


def _check_place(run: Run, *, resume: bool) -> None:
    """Refuse to continue what never began."""
    refuse_address(run.path, "--out")
    if resume and not run.begun:
        raise RunError(f"There is no run in {run.path} to continue; start without --resume.")


def _writing(run: Run, extend: int | None) -> AbstractContextManager[None]:
    """Keep other processes from writing a run that is to be trained, for the first process."""
    if (run.finished and extend is None) or not hardware.is_first_process():
        return nullcontext()
    return sole_writer(run.path)
