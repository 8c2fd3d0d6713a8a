"""Shorten the training of a recipe: everything that it counts in epochs, in one proportion.

Which keys count epochs stands in their types (`InEpochs` in `config/limits.py`), those of methods
included.
"""

from collections.abc import Mapping
from typing import Any, get_args

from understudy import methods
from understudy.config.limits import AUTO, InEpochs
from understudy.config.recipe import Recipe, teacher_and_method
from understudy.config.schema import hints_of, leaves
from understudy.config.tables import put
from understudy.distillation.weights import Weight
from understudy.errors import RecipeError


def shortened(recipe: Recipe, share: float) -> Recipe:
    """Return a recipe with a share of its epochs, at least one.

    Milestones, warm-ups and what methods count in epochs keep their place in the training: all are
    multiplied by the share of epochs that is left after rounding. Whole epochs are rounded to at
    least one. Milestones that fall together are one, and one that falls to the end is left out; the
    warm-up of a weight may be rounded to none.

    Args:
        recipe: Recipe to shorten.
        share: Above 0; 1 changes nothing.

    Raises:
        NameNotFound: It names a method that does not exist.
        RecipeError: Its number of epochs is `auto`.
    """
    if share == 1:
        return recipe
    if recipe.training.epochs == AUTO:
        raise RecipeError(
            f"The epochs of {recipe.name} are chosen by the number of images, so that there is "
            "nothing to take a share of: set training.epochs, or `base: _papers` in its file."
        )
    epochs = max(1, round(recipe.training.epochs * share))
    share = epochs / recipe.training.epochs
    content, values = recipe.to_dict(), recipe.flat()
    for path, hint, _ in leaves(Recipe):
        if unit := unit_of(hint):
            put(content, path, _shorter(values[path], unit, share))
    milestones = [epoch for epoch in content["training"]["milestones"] if epoch < epochs]
    put(content, "training.milestones", milestones)
    shorter = Recipe.from_dict(content)
    methods = {
        label: _shorter_method(teacher_and_method(label)[1], keys, share)
        for label, keys in shorter.each_method.items()
    }
    return shorter.with_methods(methods)


def unit_of(hint: Any) -> InEpochs | None:
    """Return the unit that a type declares, also of what it contains; None if it is not epochs."""
    if isinstance(hint, InEpochs):
        return hint
    return next(filter(None, map(unit_of, get_args(hint))), None)


def _shorter(value: Any, unit: InEpochs, share: float) -> Any:
    if isinstance(value, list | tuple):
        return sorted({_shorter(each, unit, share) for each in value})
    return max(unit.least, round(value * share)) if unit.whole else value * share


def _shorter_method(label: str, keys: Mapping[str, Any], share: float) -> dict[str, Any]:
    method = methods.find(str(keys.get("method", label)))
    hints = hints_of(method.__init__)
    result = dict(keys)
    for key, default in methods.hyper_parameters(method).items():
        if unit := unit_of(hints.get(key)):
            result[key] = _shorter(keys.get(key, default), unit, share)
    if isinstance(weight := keys.get("weight"), Mapping):
        units = {key: unit_of(hint) for key, hint in hints_of(Weight).items()}
        result["weight"] = {
            key: _shorter(value, unit, share) if (unit := units.get(key)) else value
            for key, value in weight.items()
        }
    return result
