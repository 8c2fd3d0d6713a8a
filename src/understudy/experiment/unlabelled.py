"""Join images without labels to the training images of a recipe, as `data.unlabelled` says."""

import logging
from functools import cache
from pathlib import Path

from understudy.config.recipe import Recipe
from understudy.data import DecodedSource, Source
from understudy.data.joined import join
from understudy.data.sources import folder
from understudy.errors import RecipeError
from understudy.files import refuse_address
from understudy.tasks import Task

LOGGER = logging.getLogger("understudy")

NONE = "none"
"""Value of `data.unlabelled` that leaves out a folder `unlabelled` beside `train`."""


def with_unlabelled(recipe: Recipe, task: Task, train: Source) -> Source:
    """Return the training images, with the images without labels of the recipe behind them.

    They are in the folder `data.unlabelled`, or for the source `folder` in a folder `unlabelled`
    beside `train`.

    Args:
        recipe: Names them.
        task: What the images are for.
        train: Training images, split and reduced already.

    Raises:
        DataError: There is no such folder, or it has no images.
        RecipeError: The task needs boxes in every image.
    """
    place = unlabelled_folder(recipe)
    if place is None:
        return train
    if task.truth == "objects":
        raise RecipeError(
            "data.unlabelled joins images without boxes, of which a detector would learn that they "
            "show nothing: leave it out for detection."
        )
    spec = recipe.data
    more = folder.load_unlabelled(place, unreadable=spec.unreadable)
    if spec.decoded and more.pixels is None:
        more = DecodedSource(more, Path(spec.decoded) / "unlabelled", side=spec.decoded_side)
    _say(len(train), len(more), place, bool(recipe.each_method))
    return join(train, more)


def unlabelled_folder(recipe: Recipe) -> Path | None:
    """Return the folder of images without labels that a recipe joins; None for no such images."""
    spec = recipe.data
    if spec.unlabelled:
        refuse_address(spec.unlabelled, "data.unlabelled")
        return None if spec.unlabelled == NONE else Path(spec.unlabelled)
    return folder.unlabelled_beside(spec.root) if spec.source == "folder" else None


@cache
def _say(with_labels: int, without: int, place: Path, methods: bool) -> None:
    """Say it once for the arms of a comparison."""
    use = (
        "methods learn from all of them" if methods else "without a method nothing learns from them"
    )
    LOGGER.info(
        f"{without:,} images of {place}, without labels, join the {with_labels:,} training images: "
        f"{use}. data.labelled_share sets the part of labelled ones in a batch; data.unlabelled "
        f"{NONE} leaves them out."
    )
