"""Put a bank in front of the teacher of an experiment; refuse one that cannot serve its methods."""

import os
from dataclasses import replace
from pathlib import Path
from typing import cast

from understudy.bank import Bank, Contract
from understudy.bank.replay import Codes, Replay
from understudy.config.recipe import Recipe
from understudy.distillation.distiller import Teacher
from understudy.errors import RecipeError
from understudy.experiment.build import Experiment
from understudy.methods import Method
from understudy.tasks import COMPARED


def attach(experiment: Experiment, recipe: Recipe) -> Replay | None:
    """Let the distiller read the teacher's features from the bank of a recipe.

    Returns:
        What reads and fills the bank; None if the recipe names no bank, or no method.

    Raises:
        BankError: The directory holds another bank.
        RecipeError: A method reads what the bank does not store, or images are mixed.
    """
    distiller = experiment.distiller
    if distiller.teacher is None or not recipe.bank.path or not distiller.trainable.methods:
        return None
    _check_served(experiment, recipe)
    replay = opened(experiment, distiller.teacher, recipe)
    if recipe.bank.codes:
        replay.codes = Codes(replay.bank, _methods(experiment))
    distiller.replay, distiller.stored = replay, replay.holds
    return replay


def opened(experiment: Experiment, teacher: Teacher, recipe: Recipe) -> Replay:
    """The bank of a recipe, made if there is none, with the teacher that fills it.

    Raises:
        BankError: The directory holds another bank.
        RecipeError: Images are mixed, or have boxes: of such a bank can hold nothing.
    """
    if _mixes(recipe):
        raise RecipeError(
            "A bank stores what the teacher gives for single images and cannot serve mixed ones: "
            "leave bank.path out, or set data.mixup and data.cutmix to 0."
        )
    bank = Bank(Path(recipe.bank.path), contract(experiment, teacher, recipe))
    return Replay(teacher, bank, experiment.train.views, upcoming=experiment.train.upcoming)


def contract(experiment: Experiment, teacher: Teacher, recipe: Recipe) -> Contract:
    """What the bank of an experiment must be made of.

    Raises:
        RecipeError: Its images have boxes, of which no bank can hold anything.
    """
    _check_whole(experiment)
    shapes, views = teacher.network.shapes, experiment.train.views
    return Contract(
        teacher=experiment.digests["teacher"],
        input=str(teacher.network.input),
        precision=str(teacher.precision or "fp32").removeprefix("torch."),
        images=experiment.images.train.images_digest,
        transform=views.description,
        num_images=len(experiment.images.train),
        num_views=views.count or 1 + recipe.bank.views,
        features={name: shapes[name] for name in recipe.bank.features if name in shapes},
        dtype=recipe.bank.dtype,
        top_logits=recipe.bank.top_logits,
    )


def tested(experiment: Experiment, recipe: Recipe) -> Replay | None:
    """What the teacher gives for the test images, stored beside the bank of a recipe, if any.

    Always as it is: metrics of the teacher are no place to save bytes. A bank that can only be read
    goes without it.
    """
    distiller, views = experiment.distiller, experiment.test.views
    root = Path(recipe.bank.path)
    if distiller.teacher is None or not recipe.bank.path:
        return None
    shapes = distiller.teacher.network.shapes
    made_of = replace(
        contract(experiment, distiller.teacher, recipe),
        images=experiment.digests["test images"],
        transform=views.description,
        num_images=len(experiment.test.labels),
        num_views=views.count or 1,
        features={name: shapes[name] for name in COMPARED if name in shapes},
        dtype="fp32",
        top_logits=None,
    )
    folder = root / f"test-{made_of.images}"
    if root.is_dir() and not folder.is_dir() and not os.access(root, os.W_OK):
        return None
    return Replay(distiller.teacher, Bank(folder, made_of), views)


def serves(experiment: Experiment, recipe: Recipe) -> bool:
    """Whether the bank of a recipe stores all that its methods read, of images as they are."""
    if _mixes(recipe) or experiment.task.truth == "objects":
        return False
    return not any(_missing(method, recipe) for method in _methods(experiment).values())


def _mixes(recipe: Recipe) -> bool:
    """Whether the teacher is shown mixed images, of which a bank can hold nothing."""
    return bool(recipe.data.mixup or recipe.data.cutmix)


def _check_whole(experiment: Experiment) -> None:
    if experiment.task.truth == "objects":
        raise RecipeError(
            "A bank stores what the teacher gives for whole images, but a detector is read where "
            "the student looks: leave bank.path out."
        )


def _check_served(experiment: Experiment, recipe: Recipe) -> None:
    _check_whole(experiment)
    for name, method in _methods(experiment).items():
        if missing := _missing(method, recipe):
            raise RecipeError(
                f"The method '{name}' reads {', '.join(missing)} of the teacher, which the bank "
                "does not store: add it to bank.features, or leave bank.path out."
            )


def _missing(method: Method, recipe: Recipe) -> list[str]:
    return sorted(set(method.reads) - set(recipe.bank.features))


def _methods(experiment: Experiment) -> dict[str, Method]:
    return cast(dict[str, Method], dict(experiment.distiller.trainable.methods.items()))
