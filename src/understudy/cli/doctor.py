"""The command `understudy doctor`, and its short form before `distill`, `compare` and `tune`."""

import os
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.cli.flags import Argument, Entry
from understudy.cli.output import console
from understudy.config.recipe import Recipe
from understudy.errors import RecipeError

if TYPE_CHECKING:
    from understudy.checks.examine import Examination
    from understudy.checks.examined import Examined
    from understudy.checks.plan import Plan
    from understudy.experiment.images import Images, ImagesOfRecipes

_SHORT = (
    "--short",
    {
        "action": "store_true",
        "help": "Only the checks that come before every `distill`, `compare` and `tune`.",
    },
)
_OUT = (
    "--out",
    {"help": "Directory that the run will write, whose disk must have room for it; default: runs."},
)
NO_DOCTOR = (
    "--no-doctor",
    {
        "action": "store_true",
        "help": "Start at once, without the checks of `understudy doctor --short`.",
    },
)


def entry(recipe: Argument, method: Argument, device: Argument) -> Entry:
    """Return the command, with arguments that it shares with others."""
    return Entry(
        "Examine a recipe before training: what is amiss, in numbers, and the flag that mends it.",
        _doctor,
        (recipe, method, _OUT, device, _SHORT),
        takes_recipe_keys=True,
    )


def _doctor(options: Namespace, overrides: dict[str, Any]) -> None:
    from understudy.checks.examine import doctor
    from understudy.words import counted

    recipe = with_methods(Recipe.load(options.recipe or {}, overrides), options.method or ())
    examination = doctor(recipe, short=options.short, device=options.device, out=options.out)
    _print(examination.lines())
    if errors := len(examination.of("error")):
        raise RecipeError(
            f"{counted(errors, 'error')}: the run would fail, or its result be worthless."
        )


def with_methods(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """Return a recipe with further methods, at their published weights, before its own."""
    if names and recipe.teachers:
        first = next(iter(recipe.teachers))
        raise RecipeError(
            f"--method adds methods for one teacher, and the recipe has "
            f"{', '.join(recipe.teachers)}: say which, such as by --teachers.{first}.methods."
            f"{names[0]}.weight 1."
        )
    methods: dict[str, dict[str, Any]] = {name: {} for name in names}
    return replace(recipe, methods=methods | recipe.methods)


@contextmanager
def before_run(recipe: Recipe, options: Namespace, folder: Path) -> "Iterator[Images | None]":
    """Examine a recipe unless its run has begun; yield the images that were read for it.

    What was printed is not said again inside of the block.

    Raises:
        RecipeError: There is an error.
        UnderstudyError: The recipe cannot be built.
    """
    from understudy.checks.examined import Examined
    from understudy.checks.messages import unrepeated
    from understudy.experiment.run_directory import Run

    if _is_skipped([recipe], options) or Run(folder).begun:
        yield None
        return
    examined = Examined(recipe, device=options.device, short=True, out=folder)
    sentences = _examine([examined], folder)
    images = examined.images
    del examined  # and with it the networks, whose memory the run needs
    with unrepeated(sentences):
        yield images


@contextmanager
def before_comparison(
    recipes: Sequence[Recipe], options: Namespace, folder: Path, plan: "Plan"
) -> "Iterator[ImagesOfRecipes | None]":
    """Examine the arms of a comparison or a search unless it has begun; yield the images read.

    Args:
        recipes: One for every arm, under its name.
        options: Those of the command.
        folder: Directory of the comparison.
        plan: All runs of the command.

    Raises:
        RecipeError: There is an error.
        UnderstudyError: An arm cannot be built.
    """
    from understudy.checks.examined import Examined
    from understudy.checks.messages import unrepeated
    from understudy.experiment.images import ImagesOfRecipes

    if _is_skipped(recipes, options) or next(folder.rglob("*/recipe.yaml"), None):
        yield None
        return
    first = Examined(recipes[0], device=options.device, short=True, out=folder, plan=plan)
    others = [
        Examined(arm, like=first, name=arm.name, device=options.device, short=True)
        for arm in recipes[1:]
    ]
    sentences = _examine([first, *others], folder)
    images = ImagesOfRecipes()
    images.keep(first.recipe, first.images)
    del first, others
    with unrepeated(sentences):
        yield images


def _is_skipped(recipes: Sequence[Recipe], options: Namespace) -> bool:
    if options.no_doctor or options.resume:
        return True
    if not all(x.each_method and x.each_teacher for x in recipes):
        return True  # the command itself says what is missing
    if "RANK" in os.environ:
        if os.environ["RANK"] == "0":
            _print(["doctor: not under torchrun; run `understudy doctor` alone for its checks"])
        return True
    return False


def _examine(arms: "Sequence[Examined]", folder: Path) -> set[str]:
    """Print warnings and errors, and keep the examination; return the sentences printed.

    Raises:
        RecipeError: There is an error.
    """
    from understudy.checks.examine import examine
    from understudy.distillation.wire import check_methods

    for arm in arms:
        check_methods(arm.recipe)
        arm.need()  # what the run would refuse is refused in the same words
    examination = examine(*arms)
    _print(_brief(examination))
    examination.write(folder)
    if errors := examination.of("error"):
        first = errors[0]
        raise RecipeError(
            f"{first.message} {first.remedy} (Found before training; --no-doctor trains all the "
            "same.)"
        )
    return {finding.message for finding in examination.faults}


def _brief(examination: "Examination") -> Iterator[str]:
    """Yield the headline, errors and warnings, and where the rest is."""
    yield examination.headline
    yield from map(str, examination.faults)
    yield from examination.not_made()


def _print(lines: Iterator[str] | Sequence[str]) -> None:
    for line in lines:
        console().print(line, soft_wrap=True, highlight=False, markup=False)
