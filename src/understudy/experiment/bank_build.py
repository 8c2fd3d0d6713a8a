"""Plan, fill and verify the bank of a recipe, apart from any training run."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from torch import Tensor

from understudy import files, methods
from understudy.bank import BATCH, Bank, Contract, Table, is_remote, local_folder
from understudy.bank.codecs import DType
from understudy.bank.replay import RecordKeys, Replay, shown_number
from understudy.batch import Batch
from understudy.config.recipe import Recipe
from understudy.data import Loader, lost_workers_explained
from understudy.distillation import wire
from understudy.distillation.device_names import find_device
from understudy.distillation.distiller import Teacher
from understudy.distillation.memory_parts import MemoryParts
from understudy.errors import BankError, RecipeError, UnderstudyError
from understudy.experiment import bank_attach, build
from understudy.experiment.own_images import given
from understudy.features import Features
from understudy.methods import Method
from understudy.training import hardware
from understudy.training.devices import accelerator, resolve
from understudy.training.missing_operations import missing_operations_explained

_TOLERANCE: dict[DType, float] = {"fp32": 1e-4, "fp16": 2e-3, "int8": 1e-2}
"""Largest difference that another batch size can make in the stored form, as a share of a feature's
length."""
_TOP = 10
"""Number of stored logits in a plan where the recipe does not say how many to store."""


@dataclass(frozen=True)
class Plan:
    """Cost of a complete bank, and the methods it would serve.

    Attributes:
        contract: What its records depend on, their number and their size.
        seconds: Time of the teacher's forward passes on this machine, estimated from two batches.
        free_bytes: Free space on the disk of the bank, or of `kept_in`.
        kept_in: Folder that keeps what is read of a bank at an address; None for one in a folder.
        memory_bytes: Free memory, which caches what is read from the bank.
        hot_bytes: Bytes that are read in every epoch: all views where they are few, else one.
        shapes: Feature of the teacher → its shape.
        sizes: Feature of the teacher → stored form → bytes in all records.
        serves: Methods, of the library and of the recipe, that read only what is stored.
        unserved: Method that reads more → the features that are not stored.
        unfit: Method that cannot work with this student and this teacher → the reason.
    """

    contract: Contract
    seconds: float
    free_bytes: int
    kept_in: Path | None
    memory_bytes: int
    hot_bytes: int
    shapes: dict[str, tuple[int, ...]]
    sizes: dict[str, dict[str, int]]
    serves: tuple[str, ...]
    unserved: dict[str, tuple[str, ...]]
    unfit: dict[str, str]


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


def plan(recipe: Recipe, *, data: Any = None, device: str | None = None) -> Plan:
    """Estimate the cost of a recipe's bank; write nothing.

    Args:
        recipe: Names the bank, the teacher and the images.
        data: Images of a program, as for `train`.
        device: As for `train`.

    Raises:
        UnderstudyError: The recipe cannot be built, or names no teacher.
    """
    experiment, teacher = built(recipe, device, data)
    contract = bank_attach.contract(experiment, teacher, recipe)
    shapes = dict(teacher.network.shapes)
    reads, unfit = _reads(experiment, recipe)
    missing = {
        name: tuple(sorted(set(read) - set(contract.features))) for name, read in reads.items()
    }
    few_views = experiment.train.views.count is not None
    folder = local_folder(recipe.bank.path)
    return Plan(
        contract=contract,
        seconds=seconds_per_image(experiment, teacher) * contract.records,
        free_bytes=files.free_bytes(folder),
        kept_in=folder if is_remote(recipe.bank.path) else None,
        memory_bytes=hardware.available_memory(),
        hot_bytes=contract.bytes if few_views else contract.bytes // contract.num_views,
        shapes=shapes,
        sizes={name: _sizes(replace(contract, features={name: shapes[name]})) for name in shapes},
        serves=tuple(name for name, features in missing.items() if not features),
        unserved={name: features for name, features in missing.items() if features},
        unfit=unfit,
    )


def _sizes(contract: Contract) -> dict[str, int]:
    """Return form → bytes of one feature in all records; `top n` only of more logits than n."""
    forms: dict[str, Contract] = {
        name: replace(contract, dtype=name, top_logits=None) for name in _TOLERANCE
    }
    top, logits = contract.top_logits or _TOP, contract.features.get("logits")
    if logits and top < logits[0]:
        forms[f"top {top}"] = replace(contract, top_logits=top)
    return {name: form.record_bytes * form.records for name, form in forms.items()}


def _reads(
    experiment: build.Experiment, recipe: Recipe
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Return the features each method reads, and why others cannot work with this pair.

    Methods of the recipe have its hyper-parameters, all others their defaults.
    """
    own = cast(Mapping[str, Method], experiment.distiller.trainable.methods)
    reads, unfit = {label: method.reads for label, method in own.items()}, {}
    teacher = cast(Teacher, experiment.distiller.teacher).network
    for name in methods.names():
        if name in reads:
            continue
        # A copy, because a method may add a layer to the student.
        student = deepcopy(experiment.distiller.student)
        try:
            wired = wire.distiller(Recipe(methods={name: {}}), student, teacher, experiment.task)
            reads[name] = cast(Method, wired.trainable.methods[name]).reads
        except UnderstudyError as error:
            unfit[name] = str(error)
    return dict(sorted(reads.items())), unfit


@lost_workers_explained()
@missing_operations_explained()
def fill(
    recipe: Recipe,
    *,
    data: Any = None,
    device: str | None = None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Table:
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
    bank = replay.bank
    if not isinstance(bank, Table):
        raise BankError(f"{bank.place} is a bank in shards, which `fill_shards` fills.")
    total = bank.contract.records
    done = bank.filled()
    remedy = "set bank.dtype to fp16, or let training store only what it meets"
    check_room(bank, total - done, what="The rest of the bank", remedy=remedy)
    for view in range(bank.contract.num_views):
        keys = _empty(bank, view)
        for (index, number), features in zip(keys, computed(replay, loader, keys), strict=True):
            bank.write(index, number, features)
            done += len(index)
            watch(done, total)
    return bank


@lost_workers_explained()
@missing_operations_explained()
def verify(
    recipe: Recipe, *, data: Any = None, records: int = 512, device: str | None = None
) -> Verified:
    """Compute random stored records again, and compare.

    Args:
        recipe: Names the bank, the teacher and the images.
        data: Images of a program, as for `train`.
        records: How many records to compute again, at most.
        device: As for `train`.

    Raises:
        BankError: There is no bank, or it is empty, a byte was flipped, or the teacher gives
            something else.
    """
    replay, loader = _open(recipe, device, data, create=False)
    bank = replay.bank
    tolerance, sample = _TOLERANCE[bank.contract.dtype], bank.sample(records)
    keys = batches(*sample)
    if not keys:
        raise BankError(f"{bank.place} is empty; fill it with `understudy bank build`.")
    worst = 0.0
    for (index, number), fresh in zip(keys, computed(replay, loader, keys), strict=True):
        stored, rounded = bank.read(index, number), bank.rounded(fresh)
        differences = [_difference(x, rounded[name]) for name, x in stored.items()]
        worst = max([worst, *differences])
    if worst > tolerance:
        length = f"{worst:.1e} of the features' length" if worst < inf else "numbers without bound"
        raise BankError(
            f"{bank.place} differs from what the teacher gives by {length}, where {tolerance:.0e} "
            f"is allowed for {bank.contract.dtype}; delete it and fill it again."
        )
    return Verified(len(sample[0]), worst, tolerance)


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
        RecipeError: There is no bank or no teacher in the recipe.
    """
    find_device(device)
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
        RecipeError: It has no `bank.path`.
    """
    if not recipe.bank.path:
        raise RecipeError("The recipe names no bank: give a folder by --bank.path.")


def _open(recipe: Recipe, device: str | None, data: Any, *, create: bool) -> tuple[Replay, Loader]:
    refuse_without_bank(recipe)
    experiment, teacher = built(recipe, device, data)
    with PartialState().main_process_first():  # which makes the bank, if there is none
        replay = bank_attach.open_replay(experiment, teacher, recipe, create=create)
    return replay, experiment.train


def computed(replay: Replay, loader: Loader, keys: Sequence[RecordKeys]) -> Iterator[Features]:
    """Yield the teacher's features of the views that belong to some records, batch by batch.

    Raises:
        NetworkError: The teacher gives NaN or infinity.
        OutOfMemory: Not even one image fits into memory.
    """
    device = replay.teacher.network.device
    in_parts = MemoryParts("computing records of the bank")
    views = [(index, shown_number(replay.views, number)) for index, number in keys]
    for images in loader.show(views):
        parts = list(in_parts(Batch.of(images.to(device)), replay.teacher))
        features = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        replay.teacher.refuse_not_finite(features)
        yield features


def _empty(bank: Table, view: int) -> list[RecordKeys]:
    """Return the records of one view that are empty, for this process's images, in order."""
    processes = PartialState()
    images = torch.arange(bank.contract.num_images)
    images = images.tensor_split(processes.num_processes)[processes.process_index]
    empty = images[~bank.has(images, torch.full_like(images, view))]
    return batches(empty, torch.full_like(empty, view))


def batches(index: Tensor, number: Tensor) -> list[RecordKeys]:
    """Return the numbers of some records in parts that the teacher computes at once."""
    parts = zip(torch.split(index, BATCH), torch.split(number, BATCH), strict=True)
    return [part for part in parts if len(part[0])]


def seconds_per_image(experiment: build.Experiment, teacher: Teacher) -> float:
    """Return the time of the teacher's forward pass for an image, from the second of two batches.

    The first one includes what is done once, such as the choice of algorithms.
    """
    batches = experiment.everything.single_pass(augmented=True)
    device = teacher.network.device
    batch = Batch.of(next(batches).images[:BATCH].to(device))
    in_parts = MemoryParts("timing the teacher")
    for _ in range(2):
        started = time.perf_counter()
        for part in in_parts(batch, teacher):
            part["penultimate"].sum().item()  # waits for the device
        seconds = time.perf_counter() - started
    return seconds / len(batch)


def check_room(bank: Bank, records: int, *, what: str, remedy: str) -> None:
    """Refuse to begin where the disk of a bank in a folder has no room for what it lacks.

    Args:
        bank: The bank.
        records: Number of records that are to be stored.
        what: What those are, for the error.
        remedy: What else than another disk there is, for the error.

    Raises:
        BankError: There is less space.
    """
    needed = records * bank.contract.bytes // bank.contract.records
    free = files.free_bytes(bank.folder)
    if free < needed:
        raise BankError(
            f"{what} needs {needed / 1e9:.2f} GB, and {bank.place} has {free / 1e9:.2f} GB free: "
            f"name another disk by bank.path, {remedy}."
        )
