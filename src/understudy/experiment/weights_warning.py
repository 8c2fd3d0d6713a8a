"""Warn of weights of runs that did not end, or that were trained on images which measure here."""

import logging
import shlex
from pathlib import Path

from understudy.config.recipe import Recipe, key_of
from understudy.config.run_weights import run_of
from understudy.experiment.images import Images
from understudy.experiment.networks import called
from understudy.experiment.run_directory import Run

LOGGER = logging.getLogger("understudy")


def warn_of_weights(recipe: Recipe, images: Images) -> None:
    """Warn of teachers, and of weights of the student, whose run did not end or held out others.

    A run on data without a test split that held other images out was trained on some of those that
    measure here, so that what is measured is too good.

    Args:
        recipe: Names the networks and the data.
        images: Those of the recipe.
    """
    weights = {called(key_of(name)): each.weights for name, each in recipe.each_teacher.items()}
    for network, place in {**weights, "student": recipe.student.weights}.items():
        folder = run_of(place)
        if folder is None:
            continue
        run = Run(folder)
        if not run.finished:
            # A comparison takes the same weights in all of its runs, as with the images below.
            LOGGER.warning(_unfinished(run, network), extra={"subject": f"unfinished {place}"})
        if _held_out_others(run, recipe, images):
            LOGGER.warning(
                f"{place}, from which the {network} is loaded, held other images out than those "
                "that measure here, so that it was trained on some of them: what is measured is "
                "too good. Train it again with the same data.validation, or part the images into "
                "folders train and test.",
                extra={"subject": f"held out by {place}"},
            )


def _unfinished(run: Run, network: str) -> str:
    epochs = run.recipe.training.epochs
    return (
        f"{run.path}, from which the {network} is loaded, stopped after {len(run.history)} of "
        f"{epochs} epochs: continue it first by `understudy --resume {shlex.quote(str(run.path))}`."
    )


def _held_out_others(run: Run, recipe: Recipe, images: Images) -> bool:
    """Return True if a run on the same data was measured on other images, held out of them."""
    if images.test.split_name or not _same_data(run.recipe, recipe):
        return False
    return run.measured_on not in ("", images.test.digest)


def _same_data(first: Recipe, second: Recipe) -> bool:
    """Return True if two recipes read the same files."""
    one, other = first.data, second.data
    same_place = Path(one.root).resolve() == Path(other.root).resolve()
    return bool(one.root) and one.source == other.source and same_place
