"""Say what a recipe does about classes of different frequency: sampling and weights."""

import logging
from functools import cache

from torch import Tensor

from understudy.config.recipe import Recipe
from understudy.data import Loader
from understudy.tasks import Task

LOGGER = logging.getLogger("understudy")


def say_balanced(recipe: Recipe, train: Loader, classes: tuple[str, ...], task: Task) -> None:
    """Say how often an epoch shows images of the rarest and the most frequent class, and weights.

    Args:
        recipe: Asks for it by `data.balance` or `training.class_weights`.
        train: Training images.
        classes: Names of the classes.
        task: Has the weights.
    """
    if recipe.data.balance:
        _say(_of_sampling(recipe.data.balance, train, classes))
    if task.class_weights is not None:
        _say(_of_weights(task.class_weights, classes))


def _of_sampling(balance: float, train: Loader, classes: tuple[str, ...]) -> str:
    draws = train.draws()
    names = {label: classes[label] if label >= 0 else "no class" for label in draws}
    by_images = sorted(draws.items(), key=lambda each: each[1][0])
    (rare, few), (common, many) = by_images[0], by_images[-1]
    return (
        f"data.balance={balance:g}: an epoch shows the {few[0]:,} images of {names[rare]!r} "
        f"{few[1]:,} times, and the {many[0]:,} of {names[common]!r} {many[1]:,} times."
    )


def _of_weights(weights: Tensor, classes: tuple[str, ...]) -> str:
    of_present = weights if weights.ndim == 1 else weights[1]
    least, most = int(of_present.argmin()), int(of_present.argmax())
    return (
        f"Weights of the classes in the loss: {of_present[least]:.3g} ({classes[least]}) to "
        f"{of_present[most]:.3g} ({classes[most]}), by training.class_weights."
    )


@cache
def _say(sentence: str) -> None:
    """Say it once, not for every arm of a comparison."""
    LOGGER.info(sentence)
