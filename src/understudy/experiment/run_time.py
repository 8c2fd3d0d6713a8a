"""Predict how long a run takes from the time of a step; durations and sizes in words."""

from understudy.config.recipe import Recipe
from understudy.experiment.images import Images

FORWARD_AND_BACKWARD = 3.0
"""Cost of a training step of a network, in forward passes."""


def measured_images(recipe: Recipe, images: Images) -> int:
    """Return how many images the student is evaluated on in a whole run."""
    training = recipe.training
    return -(-training.epochs // training.evaluate_every) * len(images.test)


def run_seconds(recipe: Recipe, images: Images, *, steps: int, step_seconds: float) -> float:
    """Predict the seconds of a run: its steps, and the evaluations of the student.

    Args:
        recipe: Names epochs and batch.
        images: Images of the recipe.
        steps: Optimizer steps of an epoch.
        step_seconds: Time of one of them.
    """
    forward = step_seconds / recipe.training.batch / FORWARD_AND_BACKWARD
    return recipe.training.epochs * steps * step_seconds + measured_images(recipe, images) * forward


def in_words(seconds: float) -> str:
    """Return a duration as words, such as `3 min`.

    >>> in_words(200.0), in_words(9000.0)
    ('3 min', '2.5 h')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size_in_words(count: int) -> str:
    """Return a number of bytes as words.

    >>> size_in_words(1_230_000_000), size_in_words(2_600_000)
    ('1.2 GB', '2.6 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 0.1):.1f} MB"
