"""Rules that join several keys of a recipe; limits of single keys stand in their types."""

import re
from itertools import combinations
from typing import TYPE_CHECKING

from understudy.config.limits import AUTO
from understudy.errors import RecipeError, short

if TYPE_CHECKING:
    from understudy.config.recipe import Data, Recipe, Training

_TAKEN = {
    "task": "the loss on labels",
    "total": "the sum of all losses",
    "control": "the arm of a comparison without a method",
    "bank": "the folder of the bank of a comparison",
    "tuned": "the result of a search",
    "published": "an arm of a search",
}
"""Words that no teacher among several can be called by."""


def check(recipe: "Recipe") -> None:
    """Refuse keys whose values exclude each other.

    Raises:
        RecipeError: Names the keys, and which of them to change.
    """
    _check_nesterov(recipe.training)
    _check_milestones(recipe.training)
    _check_transforms(recipe.data)
    _check_balance(recipe)
    _check_shuffle_buffer(recipe.data)
    _check_teachers(recipe)


def _check_nesterov(training: "Training") -> None:
    if not training.nesterov:
        return
    if training.optimizer not in ("sgd", AUTO):
        raise RecipeError(
            f"training.nesterov is for the optimizer sgd, and training.optimizer is "
            f"{training.optimizer}: leave training.nesterov out."
        )
    if not training.momentum:
        raise RecipeError(
            "training.nesterov needs momentum, and training.momentum is 0: set it, such as to 0.9, "
            "or leave training.nesterov out."
        )


def _check_milestones(training: "Training") -> None:
    ascending = sorted(set(training.milestones))
    if list(training.milestones) != ascending:
        raise RecipeError(
            f"'training.milestones' is {list(training.milestones)}; epochs must ascend, each once: "
            f"{ascending}."
        )


def _check_transforms(data: "Data") -> None:
    for place, entry in enumerate(() if data.transforms == AUTO else data.transforms):
        name = entry if isinstance(entry, str) else entry.get("name")
        if not isinstance(name, str) or not name:
            raise RecipeError(
                f"'data.transforms[{place}]' is {entry!r}, which names no transform: write "
                "RandAugment, or {name: RandAugment, num_ops: 2}."
            )
        before = False if isinstance(entry, str) else entry.get("before", False)
        if not isinstance(before, bool):
            raise RecipeError(
                f"'data.transforms[{place}].before' is {before!r}; it must be true or false."
            )


def _check_shuffle_buffer(data: "Data") -> None:
    for key, value in (("balance", data.balance), ("labelled_share", data.labelled_share)):
        if data.shuffle_buffer and value:
            raise RecipeError(
                f"data.{key} draws from all images of a split, and data.shuffle_buffer from few "
                "shards at a time: leave one of the two out."
            )


def _check_balance(recipe: "Recipe") -> None:
    balance, weights = recipe.data.balance, recipe.training.class_weights
    if balance and recipe.task == "none":
        raise RecipeError(
            "data.balance goes by the classes of images, which the task none does not use: leave "
            "it out."
        )
    if balance and weights == "balanced":
        raise RecipeError(
            f"data.balance={balance:g} shows images of rare classes more often, and "
            "training.class_weights=balanced would count them once more: choose one of the two, or "
            "give the weights as a list."
        )


def _check_teachers(recipe: "Recipe") -> None:
    """Refuse several teachers that cannot be told apart, or that nothing could learn from."""
    names = ", ".join(map(str, recipe.teachers))
    plain = type(recipe)()
    for key in ("teacher", "methods", "bank") if recipe.teachers else ():
        if getattr(recipe, key) != getattr(plain, key):
            own = _key_in_teachers(key, next(iter(recipe.teachers)))
            raise RecipeError(
                f"The recipe has the teachers {names}, and also sets '{key}', which is for one "
                f"teacher alone: leave it out, or set {own} of a teacher."
            )
    if recipe.teachers and recipe.task == "detection":
        remedy = "name one by 'teacher' and 'methods' in the place of 'teachers'"
        raise several_of_a_detector(names, remedy)
    for name, teacher in recipe.teachers.items():
        check_teacher_name(name)
        if not (teacher.name or teacher.weights):
            raise RecipeError(
                f"The teacher '{name}' names no network: give teachers.{name}.name, or the "
                f"directory of a run by teachers.{name}.weights."
            )
    for (one, first), (other, second) in combinations(recipe.teachers.items(), 2):
        if first.bank.path and first.bank.path == second.bank.path:
            raise RecipeError(
                f"The teachers '{one}' and '{other}' have the same bank.path "
                f"{first.bank.path!r}, and a bank holds what one teacher gives: name a folder "
                "for each."
            )


def _key_in_teachers(key: str, name: str) -> str:
    """Return where a key of a recipe with one teacher stands in one with several."""
    return f"teachers.{name}.name" if key == "teacher" else f"teachers.{name}.{key}"


def several_of_a_detector(teachers: str, remedy: str) -> RecipeError:
    """Return the refusal of several teachers of a detector."""
    return RecipeError(
        "A detector is compared with its teacher at the locations where the student looks, and "
        f"only one teacher can be read there, not {teachers}: {remedy}."
    )


def check_teacher_name(name: str) -> None:
    """Refuse a name of a teacher that names no folder, or that something else is called by.

    Raises:
        RecipeError: Says why.
    """
    reason = ""
    if not re.fullmatch(r"[\w-]{1,50}", name):
        reason = "which must be letters, digits, _ and -, at most 50: it names losses and folders"
    elif name in _TAKEN:
        reason = f"which is {_TAKEN[name]}"
    if reason:
        raise RecipeError(
            f"A teacher cannot have the name {short(name)}, {reason}: call it by another name, "
            "such as dino."
        )
