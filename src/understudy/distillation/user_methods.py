"""Methods of a training loop of the user's own, for one teacher or for several by their names."""

from collections.abc import Mapping
from typing import Any

from understudy.config.recipe import OneTeacher, Recipe, TaskName
from understudy.config.rules import check_teacher_name, several_of_a_detector
from understudy.distillation.weights import plain_numbers
from understudy.errors import RecipeError, short, suggestion


def recipe_of(methods: Any, teachers: Mapping[str, object], task: TaskName) -> Recipe:
    """Return a recipe with the methods that `wire` takes.

    Args:
        methods: Method's name → weight or hyper-parameters; of teachers with names by these.
        teachers: Teachers by name; a single one may have the name "".
        task: Name of the task.

    Raises:
        RecipeError: Methods are no mapping, or are of a teacher that is not there; or a teacher has
            a name that something else is called by, or a detector has several.
    """
    if not any(teachers):
        return Recipe(task=task, methods=_entries(methods, "methods"))
    for name in teachers:
        check_teacher_name(name)
        if name in ("student", "teacher"):
            raise RecipeError(
                f"A teacher among several cannot be called '{name}', by which 'taps' and "
                "'classifier' mean a network already: give it another name."
            )
    if task == "detection" and len(teachers) > 1:
        raise several_of_a_detector(", ".join(teachers), "give one")
    if not isinstance(methods, Mapping) or not all(
        isinstance(x, Mapping) for x in methods.values()
    ):
        raise RecipeError(
            f"'methods' is {short(methods)}; of several teachers it must be a mapping from their "
            f"names to mappings, such as {{'{next(iter(teachers))}': {{'lshfm': 1}}}}."
        )
    for name in methods:
        if name not in teachers:
            raise RecipeError(
                f"'methods' names the teacher '{name}'{suggestion(str(name), teachers)}, and there "
                f"are {', '.join(teachers)}."
            )
    entries = {name: _entries(methods.get(name, {}), f"methods.{name}") for name in teachers}
    return Recipe(task=task, teachers={k: OneTeacher(methods=x) for k, x in entries.items()})


def _entries(methods: Any, key: str) -> dict[str, dict[str, Any]]:
    """Return label → hyper-parameters, with plain weights as such."""
    if not isinstance(methods, Mapping):
        raise RecipeError(
            f"'{key}' is {short(methods)}; it must be a mapping from names to weights, such as "
            "{'kd': 1}."
        )
    return {
        label: plain_numbers(dict(entry) if isinstance(entry, Mapping) else {"weight": entry})
        for label, entry in methods.items()
    }
