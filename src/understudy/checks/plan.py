"""The plan of a command that makes several runs: a comparison or a search."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from understudy.config.recipe import Recipe
from understudy.experiment.build import Experiment

SharedBank = Callable[[Recipe, Experiment], tuple[Recipe, int]]
"""Puts the bank that all arms share into the recipe of an arm, if it has one.

Returns that recipe, and the number of such banks: one for each seed where seeds cannot share.
"""


@final
@dataclass(frozen=True)
class Plan:
    """Runs that a comparison or a search makes of its arms and of the control.

    Attributes:
        words: All runs in words, such as `9 runs (2 methods and the control, 3 seeds each)`.
        runs: Run directories of each arm, on average.
        whole: Whole runs of each arm, by the epochs that are trained, on average.
        controls: Runs of controls, all together.
        bank: The bank that all runs share.
    """

    words: str
    runs: float
    whole: float
    controls: int
    bank: SharedBank
