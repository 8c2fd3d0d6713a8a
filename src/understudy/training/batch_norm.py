"""Normalisation of a single value: what to change in a recipe."""

from collections.abc import Iterator
from contextlib import contextmanager

from understudy.distillation.distiller import SINGLE_VALUE
from understudy.errors import NetworkError, RecipeError


@contextmanager
def enough_images(images: int) -> Iterator[None]:
    """Say which key to change where batch normalisation has one value per channel.

    Args:
        images: Images of the largest part of the step.

    Raises:
        RecipeError: A batch normalisation was given a single value per channel.
    """
    try:
        yield
    except ValueError as error:
        if SINGLE_VALUE not in str(error):
            raise
        raise RecipeError(
            f"Batch normalisation needs several values per channel in training, but a part of a "
            f"step of at most {images} {'image' if images == 1 else 'images'} had one: set "
            "training.batch higher, or training.accumulate lower; where maps shrink to one "
            "pixel, larger images (data.size) help as well."
        ) from error


@contextmanager
def enough_values(network: str) -> Iterator[None]:
    """Say what to change where a network normalises single values in evaluation.

    So does a group normalisation with a group for each channel, on a map of one pixel.

    Args:
        network: Role and name of the network, for the error.

    Raises:
        NetworkError: It does.
    """
    try:
        yield
    except ValueError as error:
        if SINGLE_VALUE not in str(error):
            raise
        raise NetworkError(
            f"The {network} normalises groups of a single value, where a map of one image shrinks "
            "to one pixel: use larger images (data.size, for a detector the option min_size), or "
            "more channels in a group."
        ) from error
