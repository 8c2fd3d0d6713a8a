"""Put a bank in front of the teacher of an experiment; refuse one that cannot serve its methods."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, cast

from understudy.bank import (
    Bank,
    Contract,
    Shards,
    Table,
    local_folder,
    make_shards,
    open_bank,
)
from understudy.bank.map_replay import MapReplay
from understudy.bank.replay import Codes, Replay
from understudy.config.recipe import Recipe
from understudy.distillation.distiller import Teacher
from understudy.errors import RecipeError
from understudy.experiment import bank_maps
from understudy.experiment.build import Experiment
from understudy.methods import Method
from understudy.tasks import COMPARED

LOGGER = logging.getLogger("understudy")

_NAMED = 2
"""Folders of shards that are named in a message, at most."""


def attach(experiment: Experiment, recipe: Recipe) -> Replay | MapReplay | None:
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
    if experiment.task.truth == "objects":
        of_maps = bank_maps.open_maps(experiment, distiller.teacher, recipe)
        _check_shards(of_maps.bank.banks, recipe)
        distiller.replay = of_maps
        return of_maps
    _check_served(experiment, recipe)
    replay = open_replay(experiment, distiller.teacher, recipe)
    if isinstance(replay.bank, Shards):
        _check_shards([replay.bank], recipe)
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
        RecipeError: Images are mixed.
    """
    bank = open_bank(recipe.bank.path, contract(experiment, teacher, recipe), create=create)
    return Replay(teacher, bank, experiment.train.views, upcoming=experiment.train.upcoming)


def open_any(
    experiment: Experiment, teacher: Teacher, recipe: Recipe, *, create: bool
) -> Replay | MapReplay:
    """Open the bank of a recipe, of features of whole images or of a detector's maps.

    Raises:
        UnderstudyError: As for `open_replay` and `open_maps`.
    """
    if experiment.task.truth == "objects":
        return bank_maps.open_maps(experiment, teacher, recipe, create=create)
    return open_replay(experiment, teacher, recipe, create=create)


def open_shards(
    experiment: Experiment, teacher: Teacher, recipe: Recipe, images: int | None
) -> Replay | MapReplay:
    """Open the bank in shards of a recipe, made if there is none.

    Args:
        experiment: Has the images.
        teacher: Computes what is not stored.
        recipe: Names the bank.
        images: Images of a shard; default: as the bank has it, or else as many as are handy.

    Raises:
        UnderstudyError: As for `open_replay` and `open_maps`.
    """
    if experiment.task.truth == "objects":
        return bank_maps.open_maps(experiment, teacher, recipe, shards=True, images=images)
    whole, views = contract(experiment, teacher, recipe), experiment.train.views
    few = views.count is not None
    bank = make_shards(recipe.bank.path, whole, few_views=few, images=images)
    return Replay(teacher, bank, views)


def contracts(experiment: Experiment, teacher: Teacher, recipe: Recipe) -> dict[str, Contract]:
    """Return the contracts of a recipe's bank: one, or of a detector's maps one for each size.

    Raises:
        RecipeError: No bank can store what this teacher gives for these views.
    """
    if experiment.task.truth == "objects":
        canvases = bank_maps.sizes(experiment)
        return bank_maps.map_contracts(experiment, teacher, recipe, canvases)
    return {"": contract(experiment, teacher, recipe)}


def contract(experiment: Experiment, teacher: Teacher, recipe: Recipe) -> Contract:
    """Return all that the records of a recipe's bank of whole images depend on.

    Raises:
        RecipeError: Images are mixed.
    """
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
        scales="channel",
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
        What reads and fills that bank; None without such images, without a bank in the recipe, of a
        detector, or if its directory is read-only.
    """
    if experiment.task.truth == "objects":
        return None  # it finds another number of objects in each image
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
    """Return True if a bank can store all that a recipe's methods read, and change no result.

    Maps of a detector are stored for each image alone, and are others in a batch with padding.
    """
    if _mixes(recipe) or experiment.task.truth == "objects":
        return False
    return not any(_not_stored(method, recipe) for method in _methods(experiment).values())


def _check_shards(banks: Sequence[Bank], recipe: Recipe) -> None:
    """Refuse codes, which training stores; say what is missing, and where shards are kept."""
    shards = [bank for bank in banks if isinstance(bank, Shards)]
    if not shards:
        return
    place = recipe.bank.path
    if recipe.bank.codes:
        raise RecipeError(
            f"{place} is a bank in shards, to which training adds nothing: set bank.codes to "
            "false, or name a folder without a bank by bank.path."
        )
    if shards[0].store.local is None:
        folders = ", ".join(str(bank.folder) for bank in shards[:_NAMED])
        more = ", …" if len(shards) > _NAMED else ""
        LOGGER.info(f"Shards of {place} are fetched once, into {folders}{more}.")
    filled = sum(bank.filled() for bank in shards)
    records = sum(bank.contract.records for bank in shards)
    if filled < records:
        LOGGER.warning(
            f"{place} holds {filled:,} of {records:,} records, and "
            "training adds none to a bank in shards: the teacher runs for batches that miss one. "
            "`understudy bank build` completes it."
        )


def _mixes(recipe: Recipe) -> bool:
    """Return True if the teacher gets mixed images, of which a bank can store nothing."""
    return bool(recipe.data.mixup or recipe.data.cutmix)


def _check_served(experiment: Experiment, recipe: Recipe) -> None:
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
