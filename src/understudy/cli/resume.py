"""`--resume DIR`: continue what a directory holds, by what is recorded in it."""

import shlex
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from understudy.cli.flags import Argument
from understudy.config.recipe import Recipe
from understudy.config.tables import read
from understudy.config.trust import check_transforms_of_run
from understudy.errors import RecipeError, RunError, UnderstudyError
from understudy.experiment.call import FILE, Call, call_of
from understudy.experiment.run_directory import Run

RESUME: Argument = (
    "--resume",
    {
        "nargs": "?",
        "const": True,
        "default": False,
        "metavar": "DIR",
        "help": "Continue an interrupted run or comparison exactly: the one in DIR, which needs "
        "nothing else, or without DIR that of --out or of the recipe.",
    },
)

_COMMANDS = {"compare_students": "compare"}
"""Public function → command of another name."""


def command_of(folder: Path) -> str:
    """Return the command that continues what a directory holds.

    Raises:
        RunError: It is missing, or holds nothing that can be continued.
    """
    if call := call_of(folder):
        if "of" in call.arguments:
            raise RunError(f"{folder} is a part of {call.arguments['of']}: continue that.")
        return _COMMANDS.get(call.function, call.function)
    run = Run(folder)
    if run.begun:
        return "distill" if run.recipe.each_method else "train"
    if not folder.is_dir():
        raise RunError(f"There is nothing in {folder} to continue: it does not exist.")
    if any(folder.glob("*/seed*/recipe.yaml")):
        raise RunError(
            f"{folder} does not say by which command it was begun, which earlier versions did not "
            "record: give that command again, which continues it."
        )
    inner = [str(place) for place in _begun_in(folder)[:5]]
    advice = f"; name one of {', '.join(inner)}" if inner else ", no run and no comparison"
    raise RunError(f"There is nothing in {folder} itself to continue{advice}.")


def _begun_in(folder: Path) -> list[Path]:
    """Return the runs, comparisons and searches in a folder, those that are not finished first."""
    called = {file.parent for file in folder.rglob(FILE)}
    runs = {file.parent for file in folder.rglob("recipe.yaml")}
    whole = [place for place in called | runs if called.isdisjoint(place.parents)]

    def finished(place: Path) -> bool:
        return all(Run(run).finished for run in runs if place in (run, *run.parents))

    return sorted(whole, key=lambda place: (finished(place), str(place)))


def take_directory(options: Namespace, command: str) -> Path | None:
    """Return the directory that `--resume DIR` names, and note it as `--out`; None without one.

    A recipe behind `--resume`, which needs no directory, is noted as the recipe.

    Raises:
        RecipeError: `--out` names another directory.
        RunError: The directory holds nothing that this command can continue.
    """
    if not isinstance(options.resume, str):
        return None
    word, folder = options.resume, Path(options.resume)
    try:
        began = command_of(folder)
    except RunError:
        if not _is_recipe(options, word):
            raise
        options.recipe, options.resume = word, True
        return None
    if began != command:
        raise RunError(
            f"{folder} was begun by `understudy {began}`: continue it by `understudy --resume "
            f"{shlex.quote(word)}`."
        )
    if options.out and Path(options.out) != folder:
        raise RecipeError(f"--resume names {folder} and --out {options.out}: leave --out away.")
    options.out, options.resume = word, True
    return folder


def recipe_in(folder: Path, overrides: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a run or of a comparison, with the keys that flags replace.

    Raises:
        NetworkError: It names a Python file that is not trusted.
        RecipeError: Likewise, for a transform.
        RunError: The directory records no recipe.
    """
    from understudy.experiment import networks

    call = call_of(folder)
    stored = Recipe.from_dict(argument(call, "recipe")) if call else Run(folder).recipe
    # What was trusted when it began, perhaps by somebody else, says nothing now.
    recipe = Recipe.load(replace(stored, trust=False), overrides)
    networks.check_trust(recipe, stored, folder)
    if not recipe.trust and recipe.data.transforms == stored.data.transforms:
        check_transforms_of_run(stored.data.transforms, folder)
    return recipe


def recipe_from(folder: Path | None, options: Namespace, overrides: Mapping[str, Any]) -> Recipe:
    """Return the recipe of the directory that is continued, or else that of the command line."""
    return recipe_in(folder, overrides) if folder else Recipe.load(options.recipe or {}, overrides)


def take_recorded(options: Namespace, folder: Path | None, *names: str) -> None:
    """Take what decides the result from the directory that is continued, unless a flag gives it."""
    for name in names:
        if getattr(options, name) is None:
            setattr(options, name, recorded(folder, name))


def argument(call: Call, name: str) -> Any:
    """Return an argument of the call that began a directory.

    Raises:
        RunError: It is not recorded.
    """
    if name not in call.arguments:
        raise RunError(
            f"{FILE} does not say with which {name} `{call.function}` was called: it is damaged, "
            "or from another version of Understudy; give the command that began it again."
        )
    return call.arguments[name]


def recorded(folder: Path | None, name: str) -> Any:
    """Return an argument of the call that began a directory; None if none did or had it."""
    call = call_of(folder) if folder else None
    return call.arguments.get(name) if call else None


def _is_recipe(options: Namespace, word: str) -> bool:
    """Return True if a word behind `--resume` is the recipe, which the command lacks so far."""
    if getattr(options, "recipe", "") is not None:
        return False
    try:
        read(word)
    except UnderstudyError:
        return False
    return True
