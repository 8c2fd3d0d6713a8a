"""Warn of weights that were trained on images which measure here."""

import logging
from pathlib import Path

from understudy.config.recipe import Recipe, key_of
from understudy.config.run_weights import run_of
from understudy.experiment.images import Images
from understudy.experiment.networks import called
from understudy.experiment.run_directory import Run

LOGGER = logging.getLogger("understudy")


def warn_of_taught(recipe: Recipe, images: Images) -> None:
    """Warn of teachers, and of weights of the student, whose run held out other images.

    It was trained on some of those that measure here, so that what is measured is too good. Where
    the data have a test split, all runs are measured on the same images.

    Args:
        recipe: Names the networks and the data.
        images: Those of the recipe.
    """
    if images.test.split_name:
        return
    weights = {called(key_of(name)): each.weights for name, each in recipe.each_teacher.items()}
    for network, place in {**weights, "student": recipe.student.weights}.items():
        if _held_out_others(place, recipe, images):
            LOGGER.warning(
                f"{place}, from which the {network} is loaded, held other images out than those "
                "that measure here, so that it was trained on some of them: what is measured is "
                "too good. Train it again with the same data.validation, or part the images into "
                "folders train and test.",
                # A comparison has the same images in all of its runs.
                extra={"subject": f"held out by {place}"},
            )


def _held_out_others(weights: str, recipe: Recipe, images: Images) -> bool:
    """Return True if weights are of a run on the same data that was measured on other images."""
    folder = run_of(weights)
    if folder is None or not (folder / "environment.json").is_file():
        return False
    run = Run(folder)
    measured = run.environment["digests"].get("test images")
    return _same_data(run.recipe, recipe) and measured not in (None, images.test.digest)


def _same_data(first: Recipe, second: Recipe) -> bool:
    """Return True if two recipes read the same files."""
    one, other = first.data, second.data
    same_place = Path(one.root).resolve() == Path(other.root).resolve()
    return bool(one.root) and one.source == other.source and same_place
