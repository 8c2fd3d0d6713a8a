"""The commands `understudy compare` and `demo`: their flags, and what they print."""

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.cli.doctor import NO_DOCTOR, before_comparison
from understudy.cli.flags import Argument, Entry, OneOf
from understudy.cli.output import RANK, SEEDS, console, print_lines, report_on
from understudy.cli.resume import recipe_from, recorded, take_directory, take_recorded
from understudy.config.naming import named
from understudy.config.recipe import Recipe
from understudy.errors import RecipeError, Unfinished

if TYPE_CHECKING:
    from understudy.comparison.result import Comparison
    from understudy.experiment.images import ImagesOfRecipes

_MOST_SENTENCES = 6
"""Verdicts that are printed in a sentence each."""

_METHODS = (
    "--methods",
    {
        "nargs": "+",
        "metavar": "NAME",
        "help": "Arms, such as: kd lshfm kd+nd; default: each method of the recipe. With "
        "`teachers`, their names, such as: dino dino+siglip; default: all together and each alone.",
    },
)
_STUDENTS = (
    "--students",
    {
        "nargs": "+",
        "metavar": "NAME",
        "help": "Several students, each compared with its own control behind one bank; the report "
        "shows accuracy against latency.",
    },
)
_TASK = (
    "--task",
    {
        "type": OneOf("classification", "multilabel", "detection"),
        "metavar": "NAME",
        "help": "Task to demonstrate: classification (Fashion-MNIST), multilabel or detection "
        "(synthetic shapes); default: classification.",
    },
)


def compare_entry(recipe: Argument, *shared: Argument) -> Entry:
    """Return the command `compare`, with arguments that it shares with others."""
    return Entry(
        "Compare methods with a control over several seeds, with a verdict on each.",
        _compare,
        (recipe, _METHODS, _STUDENTS, *shared, NO_DOCTOR),
        takes_recipe_keys=True,
    )


def demo_entry(*shared: Argument) -> Entry:
    """Return the command `demo`, with arguments that it shares with others."""
    return Entry(
        "Train a teacher, a control and some methods on images shipped with Understudy.",
        _demo,
        (_TASK, *shared),
    )


def _compare(options: Namespace, overrides: dict[str, Any]) -> None:
    folder = take_directory(options, "compare")
    recipe = recipe_from(folder, options, overrides)
    take_recorded(options, folder, "methods", "students", "seeds", "threads")
    _load_ahead(options)
    if options.students:
        _compare_students(options, recipe, overrides)
        return
    from understudy.comparison.compare import compare

    with _examined(options, recipe, [recipe]) as images:
        comparison = compare(
            recipe,
            methods=options.methods or (),
            bank=recorded(folder, "bank"),
            images=images,
            **_shared(options),
        )
    _show_comparison(comparison)


def _examined(
    options: Namespace, recipe: Recipe, recipes: Sequence[Recipe]
) -> "AbstractContextManager[ImagesOfRecipes | None]":
    """Examine the arms of some comparisons before they begin; yield the images that were read.

    Args:
        options: Those of the command.
        recipe: The recipe, after which the directory is named.
        recipes: It, or one for each student.
    """
    from understudy.comparison.arms import CONTROL, check_seeds
    from understudy.comparison.arms import named as arms_of
    from understudy.comparison.planned import planned

    seeds = options.seeds or SEEDS
    check_seeds(seeds)
    arms = [
        replace(arm, name=f"{one.name} {name}" if len(recipes) > 1 else name, seed=seeds[0])
        for one in recipes
        for name, arm in arms_of(one, options.methods or ()).items()
        if name != CONTROL
    ]
    folder = Path(options.out or Path("runs") / named(recipe, "comparison").name)
    plan = planned(len(arms), len(recipes), seeds, folder)
    return before_comparison(arms, options, folder, plan)


def _compare_students(options: Namespace, recipe: Recipe, overrides: dict[str, Any]) -> None:
    from understudy.comparison.students import compare_students, of_student

    if "student.name" in overrides:
        raise RecipeError("--students names the students: leave --student.name out.")
    whole = named(recipe, "comparison")
    recipes = [of_student(whole, student) for student in options.students]
    with _examined(options, recipe, recipes) as images:
        result = compare_students(
            recipe,
            options.students,
            methods=options.methods or (),
            images=images,
            **_shared(options),
        )
    report_on([Path(result)])
    refuse_failed(result.failed)


def _shared(options: Namespace) -> dict[str, Any]:
    """Return the arguments that all comparisons take."""
    names = ("out", "resume", "device", "jobs", "threads")
    shared = {name: getattr(options, name) for name in names}
    return shared | {"seeds": options.seeds or SEEDS, "progress": True}


def refuse_failed(failed: Mapping[str, str]) -> None:
    """Say which runs failed.

    Raises:
        Unfinished: At least one did.
    """
    if failed:
        raise Unfinished(
            f"{len(failed)} run{'s' * (len(failed) != 1)} failed: {', '.join(failed)}. The same "
            "command continues what is missing."
        )


def _load_ahead(options: Namespace) -> None:
    """Let a process for workers to be forked from load torch, while this one does too."""
    if options.jobs != 1 and "RANK" not in os.environ:
        from understudy.comparison.jobs.forking import load_ahead

        load_ahead()


def _show_comparison(comparison: "Comparison") -> None:
    if RANK == "0":
        from understudy.reporting import terminal_table

        content = comparison.to_dict()
        console().print(terminal_table(content))
        for sentence in _verdicts(content):
            console().print(sentence, soft_wrap=True, highlight=False, markup=False)
    _show_best(comparison)
    report_on([Path(comparison)])
    refuse_failed(comparison.failed)


def _show_best(comparison: "Comparison") -> None:
    """Print where a student of the best method is, and of the control where no method gained."""
    from understudy.comparison.arms import CONTROL
    from understudy.comparison.result import seed_of

    run = comparison.best
    if run is None:
        return
    words = {arm["name"]: arm["verdict"]["word"] for arm in comparison.arms if arm["verdict"]}
    if "gain" not in words.values() and RANK == "0":
        plain = comparison.runs(CONTROL)[0].path
        sentence = f"No method was shown to be better than the control: that of {plain} serves too."
        console().print(sentence, soft_wrap=True, highlight=False, markup=False)
    arm, seed = run.path.parent.name, seed_of(run.path)
    print_lines(run, f"The student of {arm}, the method of the highest mean, with seed {seed},")


def _verdicts(content: Mapping[str, Any]) -> list[str]:
    """Return the sentence of each verdict; of many, how many methods are better."""
    verdicts = [arm["verdict"] for arm in content["arms"] if arm["verdict"]]
    if len(verdicts) <= _MOST_SENTENCES:
        return [verdict["sentence"] for verdict in verdicts]
    better = sum(verdict["word"] == "gain" for verdict in verdicts)
    return [f"{better} of {len(verdicts)} methods are significantly better than the control."]


def _demo(options: Namespace, overrides: dict[str, Any]) -> None:
    folder = take_directory(options, "demo")
    take_recorded(options, folder, "task", "seeds", "threads")
    _load_ahead(options)
    from understudy.comparison.demo import demo

    comparison = demo(
        task=options.task or "classification",
        **_shared(options),
    )
    _show_comparison(comparison)
