"""Fill and verify the bank of a recipe, apart from any training run."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from understudy import files
from understudy.bank import Bank, Table, local_folder
from understudy.bank.codecs import DType
from understudy.bank.map_replay import MapReplay
from understudy.bank.maps import MapBank
from understudy.bank.replay import RecordKeys, Replay
from understudy.config.recipe import Recipe
from understudy.data import Loader, lost_workers_explained
from understudy.distillation.device_names import find_device
from understudy.distillation.distiller import Teacher
from understudy.errors import BankError, RecipeError
from understudy.experiment import bank_attach, build
from understudy.experiment.bank_parts import BankPart, parts_of
from understudy.experiment.own_images import given
from understudy.training.devices import accelerator, resolve
from understudy.training.missing_operations import missing_operations_explained

_TOLERANCE: dict[DType, float] = {"fp32": 1e-4, "fp16": 2e-3, "int8": 1e-2}
"""Largest difference that another batch size can make in the stored form, as a share of a feature's
length."""


@dataclass(frozen=True)
class Verified:
    """Result of `verify`.

    Attributes:
        records: Records that were computed again.
        difference: Largest length of a difference, divided by that of the feature.
        tolerance: Largest difference at which a record counts as the same, in its stored form.
    """

    records: int
    difference: float
    tolerance: float


@lost_workers_explained()
@missing_operations_explained()
def fill(
    recipe: Recipe,
    *,
    data: Any = None,
    device: str | None = None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Bank | MapBank:
    """Fill every empty record of a recipe's bank; continue where an earlier call stopped.

    Under torchrun every process fills its share of the images.

    Args:
        recipe: Names the bank, the teacher and the images.
        data: Images of a program, as for `train`.
        device: As for `train`.
        watch: Called after each batch with the number of stored records and of all records.

    Raises:
        BankError: The disk is too small, or the directory holds another bank.
    """
    replay, loader = _open(recipe, device, data, create=True)
    parts = parts_of(replay, loader)
    tables = [(part, part.bank) for part in parts if isinstance(part.bank, Table)]
    if len(tables) < len(parts):
        raise BankError(f"{recipe.bank.path} is a bank in shards, which `fill_shards` fills.")
    total = sum(table.contract.records for _, table in tables)
    done = replay.bank.filled()
    needed = sum(_missing_bytes(table) for _, table in tables)
    remedy = "set bank.dtype to fp16, or let training store only what it meets"
    check_room(recipe.bank.path, needed, what="The rest of the bank", remedy=remedy)
    for part, table in tables:
        for view in range(table.contract.num_views):
            keys = _empty(part, view)
            if not keys:  # else workers would start for no image
                continue
            for (index, number), features in zip(keys, part.compute(keys), strict=True):
                table.write(index, number, features)
                done += len(index)
                watch(done, total)
    return replay.bank


def _missing_bytes(bank: Bank) -> int:
    """Return the bytes of the records that are not stored."""
    return (bank.contract.records - bank.filled()) * bank.contract.stored_bytes


@lost_workers_explained()
@missing_operations_explained()
def verify(
    recipe: Recipe, *, data: Any = None, records: int = 512, device: str | None = None
) -> Verified:
    """Compute random stored records again, and compare.

    Args:
        recipe: Names the bank, the teacher and the images.
        data: Images of a program, as for `train`.
        records: How many records to compute again, at most; of a detector's bank at least one of
            each size.
        device: As for `train`.

    Raises:
        BankError: There is no bank, or it is empty, a byte was flipped, or the teacher gives
            something else.
    """
    replay, loader = _open(recipe, device, data, create=False)
    parts, dtype = parts_of(replay, loader), recipe.bank.dtype
    filled = [part for part in parts if part.bank.filled()]
    if not filled:
        raise BankError(f"{recipe.bank.path} is empty; fill it with `understudy bank build`.")
    share = -(-records // len(filled))
    checked = [_check_part(part, share) for part in filled]
    worst, tolerance = max(difference for _, difference in checked), _TOLERANCE[dtype]
    if worst > tolerance:
        length = f"{worst:.1e} of the features' length" if worst < inf else "numbers without bound"
        raise BankError(
            f"{recipe.bank.path} differs from what the teacher gives by {length}, where "
            f"{tolerance:.0e} is allowed for {dtype}; delete it and fill it again."
        )
    return Verified(sum(count for count, _ in checked), worst, tolerance)


def _check_part(part: BankPart, records: int) -> tuple[int, float]:
    """Compute some records of a table again; return how many, and the largest difference."""
    worst, sample = 0.0, part.bank.sample(records)
    keys = part.batches(*sample)
    for (index, number), fresh in zip(keys, part.compute(keys), strict=True):
        stored, rounded = part.bank.read(index, number), part.bank.rounded(fresh)
        worst = max(worst, *(_difference(x, rounded[name]) for name, x in stored.items()))
    return len(sample[0]), worst


def _difference(stored: Tensor, computed: Tensor) -> float:
    """Return the largest difference of a record, as a share of its length; infinite for NaN.

    Records shorter than usual are measured by the usual length: rounding in the network does not
    become smaller with its result.
    """
    stored, computed = stored.flatten(1).double(), computed.flatten(1).double()
    length = computed.norm(dim=1)
    relative = (stored - computed).norm(dim=1) / length.clamp_min(float(length.mean()))
    # Comparisons with NaN are false, so that it would pass for no difference; 0 / 0 is none.
    relative[(stored == computed).all(dim=1)] = 0.0
    return float(relative.nan_to_num(nan=inf, posinf=inf).max())


def built(recipe: Recipe, device: str | None, data: Any) -> tuple[build.Experiment, Teacher]:
    """Return the experiment of a recipe and its teacher, on its device.

    Raises:
        RecipeError: There is no bank or no teacher in the recipe, or there are several.
    """
    find_device(device)
    _refuse_several(recipe)
    with given(recipe, data) as prepared:
        experiment = build.experiment(prepared)
    teacher = experiment.distiller.teacher
    if teacher is None:
        raise RecipeError("A bank stores what a teacher gives: give --teacher.name.")
    distiller = experiment.distiller
    devices = accelerator(recipe.training, device, student=distiller.student)
    resolve(recipe.training, distiller, devices.device).apply(distiller)
    return experiment, teacher


def refuse_without_bank(recipe: Recipe) -> None:
    """Refuse a recipe that names no bank, before one is made in the working directory.

    Raises:
        RecipeError: It has no `bank.path`, or several teachers.
    """
    _refuse_several(recipe)
    if not recipe.bank.path:
        raise RecipeError("The recipe names no bank: give a folder by --bank.path.")


def _refuse_several(recipe: Recipe) -> None:
    if recipe.teachers:
        raise RecipeError(
            f"A bank holds what one teacher gives, and the recipe has {', '.join(recipe.teachers)}"
            ": take them one by one, by `recipe.alone(name)`."
        )


def _open(
    recipe: Recipe, device: str | None, data: Any, *, create: bool
) -> tuple[Replay | MapReplay, Loader]:
    refuse_without_bank(recipe)
    experiment, teacher = built(recipe, device, data)
    with PartialState().main_process_first():  # which makes the bank, if there is none
        replay = bank_attach.open_any(experiment, teacher, recipe, create=create)
    return replay, experiment.train


def _empty(part: BankPart, view: int) -> list[RecordKeys]:
    """Return the records of one view that are empty, for this process's images, in order."""
    processes, bank = PartialState(), part.bank
    images = torch.arange(bank.contract.num_images)
    images = images.tensor_split(processes.num_processes)[processes.process_index]
    empty = images[~bank.has(images, torch.full_like(images, view))]
    return part.batches(empty, torch.full_like(empty, view))


def check_room(place: str, needed: int, *, what: str, remedy: str) -> None:
    """Refuse to begin where the disk of a bank in a folder has no room for what it lacks.

    Args:
        place: Folder of the bank.
        needed: Bytes that are to be stored.
        what: What those are, for the error.
        remedy: What else than another disk there is, for the error.

    Raises:
        BankError: There is less space.
    """
    free = files.free_bytes(local_folder(place))
    if free < needed:
        raise BankError(
            f"{what} needs {needed / 1e9:.2f} GB, and {place} has {free / 1e9:.2f} GB free: "
            f"name another disk by bank.path, {remedy}."
        )
