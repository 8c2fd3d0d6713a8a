"""Put a bank in front of each teacher of an experiment; refuse one that cannot serve methods."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from understudy.bank import (
    Bank,
    Shards,
    Table,
    in_shards,
    local_folder,
    make_shards,
    open_bank,
)
from understudy.bank.map_replay import MapReplay
from understudy.bank.maps import MapBank, open_padding
from understudy.bank.replay import Codes, Replay
from understudy.config.recipe import Bank as BankKeys
from understudy.config.recipe import Recipe, key_of_bank, labelled
from understudy.data import Loader
from understudy.distillation.distiller import Distillation, Teacher
from understudy.distillation.stored_maps import padding
from understudy.errors import RecipeError
from understudy.experiment.bank_contract import (
    bank_of,
    contract,
    map_contracts,
    mixes,
    name_of,
    sizes,
)
from understudy.experiment.build import Experiment, teacher_digest
from understudy.experiment.stored_outputs import StoredOutputs
from understudy.methods import Method
from understudy.tasks import COMPARED

LOGGER = logging.getLogger("understudy")

_NAMED = 2
"""Folders of shards that are named in a message, at most."""


def attach(experiment: Experiment, recipe: Recipe) -> dict[str, Replay | MapReplay]:
    """Let the distiller read each teacher's features from the bank that the recipe has for it.

    Returns:
        Name of a teacher → what reads and fills its bank; only of those with a bank and a method.

    Raises:
        BankError: A directory holds another bank.
        RecipeError: A method reads what the bank does not store, or images are mixed.
    """
    replays: dict[str, Replay | MapReplay] = {}
    for each in experiment.distiller.distillations:
        if bank_of(recipe, each.name).path and each.methods:
            replays[each.name] = _attach(experiment, each, recipe)
    return replays


def _attach(experiment: Experiment, each: Distillation, recipe: Recipe) -> Replay | MapReplay:
    keys = bank_of(recipe, each.name)
    if experiment.task.truth == "objects":
        of_maps = open_maps(experiment, each.teacher, recipe)
        _check_shards(of_maps.bank.banks, keys)
        each.replay = of_maps
        return of_maps
    _check_served(each, keys)
    replay = open_replay(experiment, each.teacher, recipe)
    _check_shards([replay.bank], keys)
    if keys.codes:
        replay.codes = Codes(replay.bank, each.methods)
    each.replay, each.stored = replay, replay.holds
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
    path = bank_of(recipe, name_of(experiment, teacher)).path
    bank = open_bank(path, contract(experiment, teacher, recipe), create=create)
    return Replay(teacher, bank, experiment.train.views, upcoming=experiment.train.upcoming)


def open_maps(
    experiment: Experiment,
    teacher: Teacher,
    recipe: Recipe,
    *,
    create: bool = True,
    shards: bool = False,
    images: int | None = None,
) -> MapReplay:
    """Open the bank of a recipe for the maps of its teaching detector.

    Args:
        experiment: Has the images, and the student that resizes them.
        teacher: Computes what is not stored.
        recipe: Names the bank.
        create: Make it if there is none, and enlarge it if it has fewer views.
        shards: Make it in shards.
        images: Images of a shard of a new bank in shards.

    Raises:
        BankError: The place holds another bank, or none and it shall not be made.
        RecipeError: No bank can serve this student or these views.
    """
    canvases = sizes(experiment)
    contracts = map_contracts(experiment, teacher, recipe, canvases)
    place, few = recipe.bank.path, experiment.train.views.count is not None
    divided = shards or in_shards(place)
    vectors = open_padding(
        place,
        next(iter(contracts.values())),
        make=(lambda: padding(teacher)) if create and (shards or not divided) else None,
        in_shards=divided,
    )
    banks: list[Bank] = []
    for folder, of_size in contracts.items():
        inner = f"{place.rstrip('/')}/{folder}"
        if shards:
            banks.append(make_shards(inner, of_size, few_views=few, images=images))
        else:
            banks.append(open_bank(inner, of_size, create=create and not divided))
    if len(banks) > 1:
        LOGGER.info(
            f"The images are padded to {len(banks)} sizes: the bank holds the teacher's maps of "
            "each image alone, without the padding of its batch."
        )
    return MapReplay(
        teacher, experiment.distiller.student, MapBank(banks, canvases, vectors),
        experiment.train.views,
    )  # fmt: skip


def open_any(
    experiment: Experiment, teacher: Teacher, recipe: Recipe, *, create: bool
) -> Replay | MapReplay:
    """Open the bank of a recipe, of features of whole images or of a detector's maps.

    Raises:
        UnderstudyError: As for `open_replay` and `open_maps`.
    """
    if experiment.task.truth == "objects":
        return open_maps(experiment, teacher, recipe, create=create)
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
        return open_maps(experiment, teacher, recipe, shards=True, images=images)
    whole, views = contract(experiment, teacher, recipe), experiment.train.views
    few = views.count is not None
    bank = make_shards(recipe.bank.path, whole, few_views=few, images=images)
    return Replay(teacher, bank, views)


def open_measured_replays(
    experiment: Experiment, recipe: Recipe, split: Literal["validation", "test"]
) -> dict[str, Replay | StoredOutputs]:
    """Open the banks of the teachers' outputs on measured images, beside those of a recipe.

    They store them in fp32 and whole, whatever the recipe says: metrics of the teacher are computed
    of them, and bytes saved there would change those.

    Args:
        experiment: Names the teachers and the images.
        recipe: Names the banks.
        split: Split of the images.

    Returns:
        Name of a teacher → what reads and fills that bank, or of a detector, which finds another
        number of objects in each image, one file; without such images, without a bank in the
        recipe, or if its directory is read-only, a teacher has none.
    """
    loader = experiment.test if split == "test" else experiment.validation
    if loader is None:
        return {}
    opened = _measured_outputs if experiment.task.truth == "objects" else _measured_replay
    replays = {
        each.name: opened(experiment, each, recipe, loader)
        for each in experiment.distiller.distillations
        if bank_of(recipe, each.name).path
    }
    return {name: replay for name, replay in replays.items() if replay is not None}


def _measured_digest(experiment: Experiment, loader: Loader) -> str:
    """Return the digest of measured images: validation images may be the test images."""
    same = loader is experiment.test
    return experiment.digests["test images" if same else "validation images"]


def _measured_outputs(
    experiment: Experiment, each: Distillation, recipe: Recipe, loader: Loader
) -> StoredOutputs | None:
    teacher, root = each.teacher, local_folder(bank_of(recipe, each.name).path)
    depends_on = (
        experiment.digests[teacher_digest(each.name)],
        _measured_digest(experiment, loader),
        f"clean view of {loader.views.description}",
        # Settings of the network that are no weights, such as thresholds of scores.
        str(recipe.teacher),
        f"{teacher.precision}, {recipe.training.precision}",
    )
    stored = StoredOutputs(root, "; ".join(depends_on))
    writable = not root.is_dir() or os.access(root, os.W_OK)
    return stored if writable or stored.path.is_file() else None


def _measured_replay(
    experiment: Experiment, each: Distillation, recipe: Recipe, loader: Loader
) -> Replay | None:
    views, shapes = loader.views, each.teacher.network.shapes
    root = local_folder(bank_of(recipe, each.name).path)
    split_contract = replace(
        contract(experiment, each.teacher, recipe),
        images=_measured_digest(experiment, loader),
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
    return Replay(each.teacher, Table(folder, split_contract), views, clean=True)


def serves(experiment: Experiment, each: Distillation, recipe: Recipe) -> bool:
    """Return True if the bank of a teacher can store all that its methods read, and change nothing.

    Maps of a detector are stored for each image alone, and are others in a batch with padding.
    """
    if mixes(recipe) or experiment.task.truth == "objects":
        return False
    keys = bank_of(recipe, each.name)
    return not any(_not_stored(method, keys) for method in each.methods.values())


def _check_shards(banks: Sequence[Bank], keys: BankKeys) -> None:
    """Refuse codes, which training stores; say what is missing, and where shards are kept."""
    shards = [bank for bank in banks if isinstance(bank, Shards)]
    if not shards:
        return
    place = keys.path
    if keys.codes:
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


def _check_served(each: Distillation, keys: BankKeys) -> None:
    for label, method in each.methods.items():
        if missing := _not_stored(method, keys):
            key = key_of_bank(each.name)
            raise RecipeError(
                f"The method '{labelled(each.name, label)}' reads {', '.join(missing)} of the "
                f"teacher, which the bank does not store: add it to {key}.features, or leave "
                f"{key}.path out."
            )


def _not_stored(method: Method, keys: BankKeys) -> list[str]:
    """Return the features that a method reads and the bank does not store."""
    return sorted(set(method.reads) - set(keys.features))
