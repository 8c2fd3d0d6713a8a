"""The plan of a search, by which the doctor predicts what all of its runs cost."""

from collections.abc import Sequence
from pathlib import Path

from understudy.checks._words import counted
from understudy.checks.plan import Plan
from understudy.comparison.planned import shared_bank
from understudy.config.limits import AUTO
from understudy.config.recipe import Recipe
from understudy.tuning.rungs import epochs_ahead, rungs

_MANY_EPOCHS = 90
"""Epochs by which the rungs are placed where the recipe leaves their number open."""

_JUDGED = 2
"""Arms that judge a search, besides the control: the winner, and the published values."""


def planned(recipe: Recipe, arms: int, trials: int, seeds: Sequence[int], folder: Path) -> Plan:
    """Return the plan of a search.

    Args:
        recipe: Names the epochs.
        arms: Number of methods to choose from.
        trials: Settings to try.
        seeds: Seeds of the runs that judge; none for three.
        folder: Directory of the search.
    """
    open_epochs = recipe.training.epochs == AUTO
    epochs = _MANY_EPOCHS if open_epochs else recipe.training.epochs
    trials, judging = max(trials, arms), len(seeds) or 3
    steps = rungs(epochs)
    whole = (trials * steps[0] + epochs_ahead(trials, steps)) / epochs
    judged = counted((_JUDGED + 1) * judging, "run")
    return Plan(
        words=f"{counted(trials, 'trial')}, most of them shortened, and {judged} to judge",
        runs=(trials + _JUDGED * judging) / arms,
        whole=(whole + _JUDGED * judging) / arms,
        controls=judging,
        # Trials and judgement see the same images, so that one bank serves all.
        bank=shared_bank(folder / "bank", 1),
    )
