"""The plan of a search, by which the doctor predicts what all of its runs cost."""

from collections.abc import Sequence
from pathlib import Path

from understudy.checks.plan import Plan
from understudy.comparison.planned import shared_bank
from understudy.config.limits import AUTO
from understudy.config.recipe import Recipe
from understudy.tuning.rungs import epochs_to_train, rungs
from understudy.words import counted

_MANY_EPOCHS = 90
"""Epochs by which the rungs are placed where the recipe leaves their number open."""

_METHODS_JUDGED = 2
"""Arms that judge a search besides the control: the winner, and the published values."""

JUDGED_ARMS = _METHODS_JUDGED + 1
"""Arms that judge a search, with the control."""


def judging_seeds(recipe: Recipe, seeds: Sequence[int]) -> tuple[int, ...]:
    """Return the seeds of the runs that judge a search: by default three after the recipe's own."""
    return tuple(seeds) or tuple(recipe.seed + number for number in (1, 2, 3))


def planned(recipe: Recipe, arms: int, trials: int, seeds: Sequence[int], folder: Path) -> Plan:
    """Return the plan of a search.

    Args:
        recipe: Names the epochs.
        arms: Number of methods to choose from.
        trials: Settings to try.
        seeds: Seeds of the runs that judge; none for the default.
        folder: Directory of the search.
    """
    open_epochs = recipe.training.epochs == AUTO
    epochs = _MANY_EPOCHS if open_epochs else recipe.training.epochs
    trials, judging = max(trials, arms), len(judging_seeds(recipe, seeds))
    whole = epochs_to_train(trials, rungs(epochs)) / epochs
    judged = counted(JUDGED_ARMS * judging, "run")
    return Plan(
        words=f"{counted(trials, 'trial')}, most of them shortened, and {judged} to judge",
        runs=(trials + _METHODS_JUDGED * judging) / arms,
        whole=(whole + _METHODS_JUDGED * judging) / arms,
        controls=judging,
        # Trials and judgement see the same images, so that one bank serves all.
        bank=shared_bank(folder / "bank", 1),
    )
