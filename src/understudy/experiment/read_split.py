"""Read the images of one split of a recipe, and refuse what does not go with its task."""

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

from understudy import data
from understudy.config.recipe import Data, Recipe
from understudy.data import DecodedSource, Source
from understudy.data.source import Split
from understudy.errors import DataError, RecipeError
from understudy.files import refuse_address
from understudy.tasks import Task

_TRUTHS = {
    "class": "the one class",
    "classes": "the presence of each class",
    "objects": "boxes of the objects",
}
"""`Task.truth` → what the data have to tell of an image."""

_NOT_OF_BOXES = {
    "labels": "about classes, of which it can hide some, but no boxes",
    "labelled_share": "about classes that are not known, but all boxes are",
    "size": "the side of square views, but a detector resizes images by its own options",
}
"""Keys of `data` without a meaning where images have boxes → what they are about."""


def read_split(
    recipe: Recipe,
    task: Task,
    split: Split,
    *,
    classes: tuple[str, ...] | None = None,
) -> Source:
    """Read the images of one split; keep those decoded that are not in memory, if asked to.

    Args:
        recipe: Names the source.
        task: Says what the images have to tell.
        split: Split to read.
        classes: Class names of the training split, if known: no source then looks for them again.

    Raises:
        NoSplit: The source has no such split.
        DataError: Its images cannot be used, or lack what the task needs.
        RecipeError: A key of `data` does not go with the source or the task.
    """
    spec = recipe.data
    refuse_address(spec.decoded, "data.decoded")
    load: Callable[..., Source] = data.find(spec.source).load
    options = _options(spec, load, classes)
    source = load(spec.root, split, unreadable=spec.unreadable, **options)
    _check_source(recipe, task, source)
    in_memory = source.pixels is not None
    if spec.decoded_side and (in_memory or not spec.decoded):
        reason = (
            "these are small and kept in memory: leave it out" if in_memory else "set data.decoded"
        )
        raise RecipeError(
            f"data.decoded_side={spec.decoded_side} reduces the images that are kept decoded in "
            f"a folder; {reason}."
        )
    if in_memory or not spec.decoded:
        return source
    return DecodedSource(source, Path(spec.decoded) / split, side=spec.decoded_side)


def _options(
    spec: Data, load: Callable[..., Source], classes: tuple[str, ...] | None
) -> dict[str, Any]:
    """Return the arguments of `load` that only sources with boxes take.

    Raises:
        RecipeError: The recipe sets one for a source that does not.
    """
    of_boxes = {"faulty": spec.faulty, "difficult": spec.difficult}
    known = signature(load).parameters
    if set(of_boxes) <= set(known):
        return of_boxes | ({"classes": classes} if "classes" in known else {})
    for key, value in of_boxes.items():
        if value != getattr(Data(), key):
            raise RecipeError(
                f"data.{key}={value} is about boxes, which the source {spec.source!r} does not "
                "read: leave it out, or use one with boxes, such as voc, coco or yolo."
            )
    return {}


def _check_source(recipe: Recipe, task: Task, source: Source) -> None:
    """Refuse images without what the task needs, and keys of `data` that it has no use for.

    Raises:
        DataError: The source does not tell what the task has to know.
        RecipeError: A key has no meaning for detection.
    """
    multilabel = source.labels.ndim == 2
    tells = {
        "class": not multilabel,
        "classes": multilabel,
        "objects": source.target(0) is not None,
    }
    if task.uses_labels and not tells[task.truth]:
        raise DataError(
            f"The task {recipe.task!r} needs {_TRUTHS[task.truth]} in every image, which the "
            f"source {recipe.data.source!r} does not tell of {recipe.data.root or 'its images'}; "
            "choose another task or source (what it reads: understudy show "
            f"{recipe.data.source})."
        )
    for key in ("labels", "labelled_share", "size"):
        if task.truth == "objects" and getattr(recipe.data, key) is not None:
            raise RecipeError(f"data.{key} is {_NOT_OF_BOXES[key]}: leave it out for detection.")
