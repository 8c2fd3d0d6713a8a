"""The plan of a comparison, by which the doctor predicts what all of its runs cost."""

from collections.abc import Sequence
from pathlib import Path

from understudy.checks.plan import Plan, SharedBank
from understudy.comparison.arms import SEED, with_bank_in
from understudy.config.recipe import Recipe
from understudy.experiment.build import Experiment
from understudy.words import counted


def planned(arms: int, controls: int, seeds: Sequence[int], folder: Path) -> Plan:
    """Return the plan of a comparison, or of several behind one bank.

    Args:
        arms: Number of arms, without controls.
        controls: Number of controls: one for each student.
        seeds: Seeds of each.
        folder: Directory of the comparison.
    """
    count = len(seeds)
    who = f"{counted(arms, 'arm')} and {'the control' if controls == 1 else f'{controls} controls'}"
    return Plan(
        words=f"{counted((arms + controls) * count, 'run')} ({who}, {counted(count, 'seed')} each)",
        runs=count,
        whole=count,
        controls=controls * count,
        bank=shared_bank(folder / "bank", count),
    )


def shared_bank(folder: Path, seeds: int) -> SharedBank:
    """Return what puts the bank of a comparison into the recipe of an arm.

    Args:
        folder: Folder of the bank.
        seeds: Number of seeds, each of which has its own bank where they cannot share one.
    """

    def with_bank(recipe: Recipe, experiment: Experiment) -> tuple[Recipe, int]:
        banked = with_bank_in(recipe, experiment, folder)
        paths = [banked.bank.path, *(each.bank.path for each in banked.teachers.values())]
        return banked, seeds if any(SEED in path for path in paths) else 1

    return with_bank
