"""Say where a network resizes the views of a recipe to a size of its own."""

import logging

from understudy.config.image_size import Size, as_flag, in_words, pixels
from understudy.config.recipe import Recipe
from understudy.experiment.networks import called, spec_of
from understudy.models.base import Wrapped
from understudy.models.network import Network

LOGGER = logging.getLogger("understudy")


def say_resized(recipe: Recipe, view_size: Size, role: str, network: Wrapped) -> None:
    """Log that a network does not compute at the size of the views; a warning for `data.size`.

    Args:
        recipe: Names the sizes.
        view_size: Size of the views in pixels.
        role: Key of the network in the recipe, such as `student` or `teachers.dino`.
        network: The network.
    """
    spec = spec_of(recipe, role)
    own = network.input.size if isinstance(network, Network) else None
    if own in (None, view_size) or spec.size is not None:
        return
    change = "enlarges" if own and pixels(own) > pixels(view_size) else "reduces"
    if own and isinstance(own, int) != isinstance(view_size, int):
        change = "distorts"
    asked = role == "student" and recipe.data.size is not None
    LOGGER.log(
        logging.WARNING if asked else logging.INFO,
        f"The {called(role)} {network.name} {change} the images of {in_words(view_size)} pixels"
        f"{' (data.size)' if recipe.data.size else ''} to {in_words(own or 0)}, the size it was "
        f"built for: set {role}.size to {as_flag(view_size)} to compute at that size.",
    )
