"""Rules that join several keys of a recipe; limits of single keys stand in their types."""

from typing import TYPE_CHECKING

from understudy.config.limits import AUTO
from understudy.errors import RecipeError

if TYPE_CHECKING:
    from understudy.config.recipe import Data, Recipe, Training


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
    for place, entry in enumerate(data.transforms):
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
