"""Train a network by a recipe: a teacher, a control, or a student that mimics a teacher."""

from pathlib import Path
from typing import Any

from understudy import tasks
from understudy.config.recipe import NOT_IN_DIGEST, Recipe
from understudy.errors import Diverged, RecipeError, RunError
from understudy.experiment.callback import Callback
from understudy.experiment.images import Images
from understudy.experiment.run_directory import Run
from understudy.experiment.runner import Runner


def distill(recipe: Recipe, **options: Any) -> Run:
    """Train a student by the methods of a recipe; options as for `train`.

    Raises:
        RecipeError: The recipe names no method or no teacher.
    """
    if not recipe.methods or not (recipe.teacher.name or recipe.teacher.weights):
        raise RecipeError(
            "Distilling needs a teacher and a method: give --teacher.name and --method, "
            "or use `understudy train` for a control."
        )
    return train(recipe, **options)


def train(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    device: str | None = None,
    callback: Callback | None = None,
    profile: bool = False,
    images: Images | None = None,
) -> Run:
    """Execute a recipe.

    Args:
        recipe: What to train.
        out: Run directory; default `runs/<recipe.name>`.
        resume: Continue an interrupted run exactly where it was saved.
        device: `cpu`, or None for the best device there is.
        callback: Told about progress.
        profile: Measure where the time of some steps goes: a table in the log, and a trace in
            `profile.json`. It changes nothing of what is trained.
        images: Training and test images of the recipe, if they are loaded already.

    Raises:
        RunError: The directory holds another run, nothing to resume, or the disk is full.
        Diverged: A loss became NaN or infinite, now or when it was last trained; the last good
            state is kept.
        Interrupted: SIGINT or SIGTERM arrived; the state was saved.
        OutOfMemory: A step does not fit into memory in any number of parts.
    """
    run = Run(Path(out) if out else Path("runs") / recipe.name)
    _claim(run, recipe, resume=resume)
    if resume and run.finished:
        if callback:
            callback.end(recipe.name, tasks.find(recipe.task).headline, run.evaluation)
        return run
    if run.diverged:
        raise Diverged(
            f"{run.path} ended so: {run.diverged} It would again; remove it to train anew."
        )
    Runner.start(
        run.path,
        recipe,
        resume=resume,
        device=device,
        callback=callback,
        profile=profile,
        images=images,
    ).finish()
    return run


def _claim(run: Run, recipe: Recipe, *, resume: bool) -> None:
    """Refuse to mix two runs in one directory, and to continue what never began."""
    if not run.begun:
        if resume:
            raise RunError(f"There is no run in {run.path} to continue; start without --resume.")
        return
    if not resume:
        raise RunError(
            f"{run.path} already holds a run: continue it with --resume, or choose another --out."
        )
    if run.recipe.digest != recipe.digest:
        raise RunError(
            f"{run.path} was made by another recipe ({_difference(run.recipe, recipe)}); "
            "choose another --out."
        )


def _difference(old: Recipe, new: Recipe) -> str:
    before, after = old.flat(), new.flat()
    return ", ".join(
        f"{key}: {before.get(key)} there, {after.get(key)} here"
        for key in before | after
        if before.get(key) != after.get(key) and key not in NOT_IN_DIGEST
    )
