"""Put a bank in front of the teacher of an experiment; refuse one that cannot serve its methods."""

import logging
import os
from dataclasses import replace
from typing import Literal, cast

from understudy.bank import Contract, Shards, Table, local_folder, open_bank
from understudy.bank.replay import Codes, Replay
from understudy.config.recipe import Recipe
from understudy.distillation.distiller import Teacher
from understudy.errors import RecipeError
from understudy.experiment.build import Experiment
from understudy.methods import Method
from understudy.tasks import COMPARED

LOGGER = logging.getLogger("understudy")


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
    replay = open_replay(experiment, distiller.teacher, recipe)
    if isinstance(replay.bank, Shards):
        _check_shards(replay.bank, recipe)
    elif recipe.bank.codes:
        replay.codes = Codes(replay.bank, _methods(experiment))
    distiller.replay, distiller.stored = replay, replay.holds
    return replay


def open_replay(
    experiment: Experiment, teacher: Teacher, recipe: Recipe, *, create: bool = True
) -> Replay:
    """Open the bank of a recipe for its training images.

    Args:
        experiment: Has the images.
        teacher: Computes what is not stored.
        recipe: Names the bank.
        create: Make it if there is none, and enlarge it if it has fewer views.

    Raises:
        BankError: The directory holds another bank, or none and it shall not be made.
        RecipeError: Images are mixed, or the teacher is a detector: no bank can store its outputs.
    """
    bank = open_bank(recipe.bank.path, contract(experiment, teacher, recipe), create=create)
    return Replay(teacher, bank, experiment.train.views, upcoming=experiment.train.upcoming)


def contract(experiment: Experiment, teacher: Teacher, recipe: Recipe) -> Contract:
    """Return all that the records of a recipe's bank depend on.

    Raises:
        RecipeError: Images are mixed, or the teacher is a detector: no bank can store its outputs.
    """
    _refuse_detector(experiment)
    if _mixes(recipe):
        raise RecipeError(
            "A bank stores what the teacher gives for single images and cannot serve mixed ones: "
            "leave bank.path out, or set data.mixup and data.cutmix to 0."
        )
    shapes, views, images = teacher.network.shapes, experiment.train.views, experiment.images.train
    return Contract(
        teacher=experiment.digests["teacher"],
        input=str(teacher.network.input),
        precision=str(teacher.precision or "fp32").removeprefix("torch."),
        images=images.images_digest,
        transform=views.description,
        num_images=len(images),
        num_views=views.count or 1 + recipe.bank.views,
        features={name: shapes[name] for name in recipe.bank.features if name in shapes},
        dtype=recipe.bank.dtype,
        top_logits=recipe.bank.top_logits,
    )


def open_measured_replay(
    experiment: Experiment, recipe: Recipe, split: Literal["validation", "test"]
) -> Replay | None:
    """Open the bank of the teacher's outputs on images that are measured, beside that of a recipe.

    It stores them in fp32 and whole, whatever the recipe says: metrics of the teacher are computed
    of them, and bytes saved there would change those.

    Args:
        experiment: Names the teacher and the images.
        recipe: Names the bank.
        split: Split of the images.

    Returns:
        What reads and fills that bank; None without such images, without a bank in the recipe, or
        if its directory is read-only.
    """
    distiller, root = experiment.distiller, local_folder(recipe.bank.path)
    loader = experiment.test if split == "test" else experiment.validation
    if loader is None or distiller.teacher is None or not recipe.bank.path:
        return None
    views, shapes = loader.views, distiller.teacher.network.shapes
    same = loader is experiment.test
    split_contract = replace(
        contract(experiment, distiller.teacher, recipe),
        images=experiment.digests["test images" if same else "validation images"],
        transform=f"clean view of {views.description}",
        num_images=len(loader.labels),
        num_views=1,
        features={name: shapes[name] for name in COMPARED if name in shapes},
        dtype="fp32",
        top_logits=None,
    )
    folder = root / f"clean-{split_contract.images}"
    if root.is_dir() and not folder.is_dir() and not os.access(root, os.W_OK):
        return None
    return Replay(distiller.teacher, Table(folder, split_contract), views, clean=True)


def serves(experiment: Experiment, recipe: Recipe) -> bool:
    """Return True if the bank of a recipe can store all that its methods read."""
    if _mixes(recipe) or experiment.task.truth == "objects":
        return False
    return not any(_not_stored(method, recipe) for method in _methods(experiment).values())


def _check_shards(bank: Shards, recipe: Recipe) -> None:
    """Refuse codes, which training stores; say what is missing, and where shards are kept."""
    if recipe.bank.codes:
        raise RecipeError(
            f"{bank.place} is a bank in shards, to which training adds nothing: set bank.codes to "
            "false, or name a folder without a bank by bank.path."
        )
    if bank.store.local is None:
        LOGGER.info(f"Shards of {bank.place} are fetched once, into {bank.folder}.")
    absent = bank.contract.records - bank.filled()
    if absent:
        LOGGER.warning(
            f"{bank.place} holds {bank.filled():,} of {bank.contract.records:,} records, and "
            "training adds none to a bank in shards: the teacher runs for batches that miss one. "
            "`understudy bank build` completes it."
        )


def _mixes(recipe: Recipe) -> bool:
    """Return True if the teacher gets mixed images, of which a bank can store nothing."""
    return bool(recipe.data.mixup or recipe.data.cutmix)


def _refuse_detector(experiment: Experiment) -> None:
    if experiment.task.truth == "objects":
        raise RecipeError(
            "A bank has records of one size, but a detector is read where the student looks, on "
            "maps whose size differs from image to image: leave bank.path out."
        )


def _check_served(experiment: Experiment, recipe: Recipe) -> None:
    _refuse_detector(experiment)
    for name, method in _methods(experiment).items():
        if missing := _not_stored(method, recipe):
            raise RecipeError(
                f"The method '{name}' reads {', '.join(missing)} of the teacher, which the bank "
                "does not store: add it to bank.features, or leave bank.path out."
            )


def _not_stored(method: Method, recipe: Recipe) -> list[str]:
    """Return the features that a method reads and the bank does not store."""
    return sorted(set(method.reads) - set(recipe.bank.features))


def _methods(experiment: Experiment) -> dict[str, Method]:
    return cast(dict[str, Method], dict(experiment.distiller.trainable.methods.items()))
