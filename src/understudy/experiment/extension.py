"""Extend a finished run by some epochs, and end one whose validation images see no progress.

An extended run is one of more epochs from its last one on: its schedule is that of a run of all the
epochs, read from where the run stands. A cosine, which had fallen to 0, therefore starts again at
the rate that the longer one has there and falls to 0 at the new end; milestones and warm-up stay
where they were; a constant rate goes on. Everything else goes on exactly: weights, momentum, order
and views. It is not the run that would have come of more epochs from the start.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from understudy import files
from understudy.config.recipe import Recipe
from understudy.errors import RecipeError, RunError
from understudy.experiment.images import Images
from understudy.experiment.run_directory import Run
from understudy.training import hardware
from understudy.training.lr_schedule import learning_rate

LOGGER = logging.getLogger("understudy")


def extended(run: Run, epochs: int) -> Recipe:
    """Give a finished run more epochs, and leave it as one that is to be continued.

    Args:
        run: A finished run.
        epochs: How many more.

    Returns:
        Its recipe with these epochs.

    Raises:
        RunError: It is not finished, is part of a comparison, or ended before its last epoch.
    """
    if not run.finished:
        raise RunError(
            f"{run.path} is not finished, and only a finished run is extended: continue it by "
            f"`understudy --resume {run.path}` first."
        )
    if compared(run):
        raise RunError(
            f"{run.path} belongs to a comparison, whose runs have one budget: compare again with "
            "more training.epochs in another --out."
        )
    if hardware.is_grouped():
        raise RunError(
            "Several processes cannot extend a run at once: extend it by one, without torchrun, "
            f"stop that by Ctrl-C, and continue by torchrun with --resume {run.path}."
        )
    recipe, trained = run.recipe, len(run.history)
    if trained < recipe.training.epochs:
        raise RunError(
            f"{run.path} was ended by training.patience after {trained} of "
            f"{recipe.training.epochs} epochs: to train longer, start again with more patience."
        )
    longer = replace(recipe, training=replace(recipe.training, epochs=trained + epochs))
    before = run.environment
    extensions = [*before.get("extended", []), {"from": trained, "by": epochs}]
    environment = {**before, "extended": extensions}
    # In this order: whatever stops it, the run is a finished one again, or one to continue.
    (run.path / "evaluation.json").unlink()
    files.write(run.path / "environment.json", files.as_json(environment, indent=1))
    files.write(run.path / "recipe.yaml", longer.to_yaml())
    LOGGER.info(_sentence(recipe, longer, trained))
    return longer


def compared(run: Run) -> bool:
    """Return True if a run is part of a comparison, whose runs have one budget."""
    root = run.path.resolve().parent.parent
    return (root / "comparison.json").is_file() or (root / "control").is_dir()


def _sentence(before: Recipe, after: Recipe, trained: int) -> str:
    end = learning_rate(before.training, trained, 1)
    start = learning_rate(after.training, trained, 1)
    total = after.training.epochs
    return (
        f"Extended from {trained} to {total} epochs: the rate goes on as in a schedule "
        f"{before.training.schedule} of {total} epochs, at {start:.3g} in epoch {trained + 1}, "
        f"where it had come to {end:.3g}."
    )


def check_patience(recipe: Recipe, images: Images) -> None:
    """Refuse patience without images that may decide when training ends.

    Raises:
        RecipeError: There are no validation images, or test images choose the best epoch.
    """
    if recipe.training.patience is None:
        return
    if images.validation is None or recipe.training.best != "validation":
        raise RecipeError(
            "training.patience ends training by validation images, and "
            + ("there are none" if images.validation is None else "training.best is not validation")
            + ": hold some out by --data.validation 0.1 and leave training.best out, or leave "
            "training.patience out."
        )


def out_of_patience(recipe: Recipe, records: Sequence[Mapping[str, Any]], headline: str) -> bool:
    """Return True if so many evaluations as `training.patience` brought no better epoch.

    Args:
        recipe: Has the patience.
        records: Records of all epochs so far.
        headline: Metric, of the task or of fidelity, by which an epoch is better.
    """
    values = [
        {**record["metrics"], **(record["fidelity"] or {})}.get(headline)
        for record in records
        if record["metrics"] is not None
    ]
    patience = recipe.training.patience
    if patience is None or not any(value is not None for value in values):
        return False  # of too few images the metric is not defined
    scores = [value or 0.0 for value in values]
    return len(scores) > patience + scores.index(max(scores))
