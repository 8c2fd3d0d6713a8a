"""The arms of a comparison: one recipe each, on the same images, behind one bank."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

from understudy import files
from understudy.config.recipe import Recipe, without_methods
from understudy.distillation.wire import check_methods
from understudy.errors import RecipeError
from understudy.experiment import bank_attach, build
from understudy.experiment.build import Experiment

CONTROL = "control"
SEED = "{seed}"
"""Stands for the seed in the path of a bank that seeds cannot share."""


@final
class Images:
    """Training and test images of one seed at a time, which all its arms use."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._seed: int | None = None
        self._images: build.Images | None = None

    def of(self, seed: int) -> build.Images:
        """The images of a seed, loaded when they are first asked for."""
        if self._images is None or seed != self._seed:
            self._images = build.sources(replace(self._recipe, seed=seed))
            self._seed = seed
        return self._images


def named(recipe: Recipe, names: Sequence[str]) -> dict[str, Recipe]:
    """The control and one recipe for every arm.

    Raises:
        RecipeError: An arm names what there is not, or there is none.
    """
    names = list(dict.fromkeys(names)) or list(recipe.methods)
    if not names:
        raise RecipeError("There is nothing to compare: name methods, such as --methods kd lshfm.")
    if CONTROL in names:
        raise RecipeError(f"'{CONTROL}' is the arm without a method; give your method a new label.")
    arms = {CONTROL: without_methods(recipe)}
    for name in names:
        parts = {label: recipe.methods.get(label, {}) for label in name.split("+")}
        arms[name] = replace(recipe, methods=parts)
    for arm in arms.values():
        check_methods(arm)
    return arms


def banked(arm: Recipe, experiment: Experiment, root: Path) -> Recipe:
    """The arm with the bank of the comparison, if that serves its methods and has room."""
    teacher = experiment.distiller.teacher
    if arm.bank.path or teacher is None or not bank_attach.serves(experiment, arm):
        return arm
    data, few = arm.data, experiment.train.views.count is not None
    # Else which images are used, or which crops of them, hangs on the seed of the run.
    shared = data.seed is not None or (few and not data.images and not data.validation)
    path, epochs = root / "bank" / ("all" if shared else SEED), arm.training.epochs
    banked = replace(arm, bank=replace(arm.bank, path=str(path), views=epochs))
    contract = bank_attach.contract(experiment, teacher, banked)
    met = contract.bytes * min(1.0, epochs / contract.num_views)
    return banked if met < files.free_bytes(root) / 2 else arm


def seeded(arm: Recipe, name: str, seed: int) -> Recipe:
    """One run of an arm."""
    bank = replace(arm.bank, path=arm.bank.path.replace(SEED, f"seed{seed}"))
    return replace(arm, name=f"{name} seed {seed}", seed=seed, bank=bank)
