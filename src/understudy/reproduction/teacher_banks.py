"""Banks of several teachers in one folder: one for everything that its records depend on."""

import hashlib
from dataclasses import asdict, replace
from pathlib import Path

from understudy.comparison.arms import bank_of_seed, with_bank_in
from understudy.config.recipe import Recipe
from understudy.experiment import bank_attach, bank_contract, build
from understudy.experiment.images import Images
from understudy.files import as_json


def with_bank(recipe: Recipe, folder: Path, images: Images) -> Recipe:
    """Return a recipe with its teacher's bank in a folder, if that serves its methods and has room.

    Recipes whose teacher, images and views are the same share a bank.

    Args:
        recipe: Recipe of one run; its teacher has weights.
        folder: Folder of all banks.
        images: Images of the recipe.

    Raises:
        UnderstudyError: The recipe cannot be built.
    """
    if not recipe.methods:
        return recipe
    experiment = build.experiment(recipe, images=images)
    each = experiment.distiller.single
    if each is None or not bank_attach.serves(experiment, each, recipe):
        return recipe
    # A bank can grow by views; the precision is known when the run is on its device.
    contract = asdict(
        replace(bank_contract.contract(experiment, each.teacher, recipe), num_views=0)
    )
    del contract["scales"]  # a bank keeps those that it was made with
    precision = recipe.training.precision, recipe.training.teacher_precision
    key = hashlib.sha256(as_json([contract, precision]).encode()).hexdigest()[:12]
    bank = with_bank_in(recipe, experiment, folder / key / "bank").bank
    return replace(recipe, bank=bank_of_seed(bank, recipe.seed))
