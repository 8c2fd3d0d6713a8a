"""Directories that are taken: what they hold, and what to do about it. Loads no torch."""

import shlex
from fnmatch import fnmatchcase
from itertools import count
from pathlib import Path

from understudy.config.recipe import NOT_IN_DIGEST, Recipe
from understudy.errors import RunError
from understudy.experiment.call import call_of
from understudy.experiment.run_directory import Run
from understudy.files import to_continue


def claim(run: Run, recipe: Recipe, *, resume: bool) -> None:
    """Refuse to mix two runs in one directory.

    Raises:
        RunError: It holds a run that this one does not continue, or a comparison.
    """
    if not run.begun:
        _refuse_several(run.path)
        return
    difference = difference_of(run.recipe, recipe) if run.recipe.digest != recipe.digest else ""
    if resume and difference:
        raise RunError(
            f"{run.path} was made by another recipe ({difference}); choose another --out."
        )
    if not resume:
        choice = f"choose another --out, such as --out {shlex.quote(str(free_beside(run.path)))}"
        if difference:
            raise RunError(
                f"{run.path} already holds a run of another recipe ({difference}); {choice}."
            )
        raise RunError(
            f"{run.path} already holds a run of this recipe, {_state(run)}: {_next_step(run)}, or "
            f"{choice}."
        )


def _refuse_several(folder: Path) -> None:
    """Refuse a directory that holds several runs.

    Raises:
        RunError: It was begun by a function that trains several.
    """
    if call := call_of(folder):
        raise RunError(
            f"{folder} holds what `understudy {call.function.partition('_')[0]}` began, several "
            f"runs: choose another --out, such as --out {shlex.quote(str(free_beside(folder)))}."
        )


def _state(run: Run) -> str:
    """Return how far a run is, in words."""
    if run.finished:
        return "finished"
    return "diverged" if run.diverged else f"stopped after epoch {len(run.history)}"


def _next_step(run: Run) -> str:
    """Return what to do with a run that the directory holds."""
    if run.finished:
        return f"`understudy report {shlex.quote(str(run.path))}` shows it"
    return "delete the directory to train again" if run.diverged else to_continue(run.path)


def free_beside(path: Path) -> Path:
    """Return the name of a directory beside another one that does not exist yet."""
    numbered = (path.with_name(f"{path.name}_{number}") for number in count(2))
    return next(free for free in numbered if not free.exists())


def difference_of(old: Recipe, new: Recipe) -> str:
    """Return the keys that differ between the recipe of a directory and another one, in words."""
    before, after = old.flat(), new.flat()
    return ", ".join(
        f"{key}: {before.get(key)} there, {after.get(key)} here"
        for key in before | after
        if before.get(key) != after.get(key)
        and not any(fnmatchcase(key, pattern) for pattern in NOT_IN_DIGEST)
    )
