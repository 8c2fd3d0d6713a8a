"""A teacher whose outputs come from a bank, and are stored there when they are not in it yet."""

from pathlib import Path
from typing import final

import torch

from understudy.bank import Bank, Contract
from understudy.batch import Batch
from understudy.build import Experiment
from understudy.data import Views
from understudy.distiller import Teacher
from understudy.errors import RecipeError
from understudy.features import Features
from understudy.recipe import Recipe


@final
class Replay:
    """Features of a batch, read from a bank; a view that is met for the first time is stored.

    The teacher runs on the whole batch if anything of it is missing, never on a part: its numbers
    are then those it would have given without a bank.

    Args:
        teacher: Gives what is not stored.
        bank: Where outputs are stored.
        views: Tells which place in the bank a view has.
    """

    def __init__(self, teacher: Teacher, bank: Bank, views: Views) -> None:
        self.teacher, self.bank, self.views = teacher, bank, views

    def __call__(self, batch: Batch) -> Features:
        """Features of the teacher, on the device of the batch."""
        index = batch.index.cpu()
        number = self.views.number(index, batch.view.cpu())
        if not ((number >= 0) & (number < self.bank.contract.num_views)).all():
            return self.teacher(batch.images)  # type: ignore[no-any-return]
        missing = ~self.bank.has(index, number)
        if missing.any():
            features = self.teacher(batch.images)
            met = {name: x.cpu()[missing] for name, x in features.items()}
            self.bank.write(index[missing], number[missing], met)
        stored = self.bank.read(index, number)
        return {name: x.to(batch.images.device) for name, x in stored.items()}


def attach(experiment: Experiment, recipe: Recipe, precision: torch.dtype | None) -> None:
    """Put the bank of a recipe in front of the teacher, which computes in `precision` from now on.

    Without a bank in the recipe, or anything to learn from the teacher, it stays in front itself.

    Raises:
        BankError: The directory holds another bank.
        RecipeError: A method reads what the bank does not store.
    """
    distiller = experiment.distiller
    if distiller.teacher is None:
        return
    distiller.teacher.precision = precision
    if recipe.bank.path and distiller.trainable.methods:
        _check_served(experiment, recipe)
        distiller.replay = opened(experiment, distiller.teacher, recipe)


def opened(experiment: Experiment, teacher: Teacher, recipe: Recipe) -> Replay:
    """The bank of a recipe, made if there is none, with the teacher that fills it.

    Raises:
        BankError: The directory holds another bank.
    """
    bank = Bank(Path(recipe.bank.path), contract(experiment, teacher, recipe))
    return Replay(teacher, bank, experiment.train.views)


def contract(experiment: Experiment, teacher: Teacher, recipe: Recipe) -> Contract:
    """What the bank of an experiment must be made of."""
    shapes, views = teacher.network.shapes, experiment.train.views
    return Contract(
        teacher=experiment.digests["teacher"],
        input=str(teacher.network.input),
        precision=str(teacher.precision or "fp32").removeprefix("torch."),
        images=experiment.images.images_digest,
        transform=views.description,
        num_images=len(experiment.images),
        num_views=views.count or recipe.bank.views,
        features={name: shapes[name] for name in recipe.bank.features if name in shapes},
        dtype=recipe.bank.dtype,
    )


def _check_served(experiment: Experiment, recipe: Recipe) -> None:
    for name, method in experiment.distiller.trainable.methods.items():
        missing = set(method.reads) - set(recipe.bank.features)  # type: ignore[arg-type]
        if missing:
            raise RecipeError(
                f"The method '{name}' reads {', '.join(sorted(missing))} of the teacher, which the "
                f"bank does not store: add it to bank.features, or leave bank.path out."
            )
