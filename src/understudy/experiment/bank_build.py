"""Plan, fill and verify the bank of a recipe, apart from any training run."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from accelerate import PartialState
from torch import Tensor

from understudy import files, methods
from understudy.bank import Bank, Contract
from understudy.bank.codecs import DType
from understudy.bank.replay import RecordKeys, Replay, shown_number
from understudy.batch import Batch
from understudy.config.recipe import Recipe
from understudy.data import Loader
from understudy.distillation import wire
from understudy.distillation.distiller import Teacher
from understudy.errors import BankError, RecipeError, UnderstudyError
from understudy.experiment import bank_attach, build
from understudy.features import Features
from understudy.methods import Method
from understudy.training import hardware
from understudy.training.devices import accelerator, resolve

BATCH = 256
_TOLERANCE: dict[DType, float] = {"fp32": 1e-4, "fp16": 2e-3, "int8": 1e-2}
"""Largest difference that another batch size can make in the stored form, of the length."""
_TOP = 10
"""Logits that a plan counts with where the recipe does not say how many to store."""


@dataclass(frozen=True)
class Plan:
    """What a complete bank would take, and whom it would serve.

    Attributes:
        contract: What it holds.
        seconds: Of the teacher's forward passes on this machine, estimated from two batches.
        free_bytes: Of the disk it would lie on.
        memory_bytes: Of memory that keeps what was read from it.
        hot_bytes: What is read again and again, or ahead: all views where they are few, else one.
        shapes: Every feature of the teacher → its shape.
        sizes: Every feature of the teacher → form → bytes in all records.
        serves: Methods, of the library and of the recipe, that read only what it holds.
        unserved: Method that reads more → what it reads beside.
        unfit: Method that cannot work with this student and this teacher → why.
    """

    contract: Contract
    seconds: float
    free_bytes: int
    memory_bytes: int
    hot_bytes: int
    shapes: dict[str, tuple[int, ...]]
    sizes: dict[str, dict[str, int]]
    serves: tuple[str, ...]
    unserved: dict[str, tuple[str, ...]]
    unfit: dict[str, str]


@dataclass(frozen=True)
class Verified:
    """Records computed again: how many, and the largest difference, of the features' length."""

    records: int
    difference: float


def plan(recipe: Recipe, *, device: str | None = None) -> Plan:
    """Estimate a complete bank; writes nothing.

    Raises:
        UnderstudyError: The recipe cannot be built, or names no teacher.
    """
    experiment, teacher = _built(recipe, device)
    contract = bank_attach.contract(experiment, teacher, recipe)
    shapes = dict(teacher.network.shapes)
    reads, unfit = _reads(experiment, recipe)
    missing = {
        name: tuple(sorted(set(read) - set(contract.features))) for name, read in reads.items()
    }
    few = experiment.train.views.count is not None
    return Plan(
        contract=contract,
        seconds=_seconds_per_image(experiment, teacher) * contract.records,
        free_bytes=files.free_bytes(Path(recipe.bank.path)),
        memory_bytes=hardware.available_memory(),
        hot_bytes=contract.bytes if few else contract.bytes // contract.num_views,
        shapes=shapes,
        sizes={name: _sizes(replace(contract, features={name: shapes[name]})) for name in shapes},
        serves=tuple(name for name, beside in missing.items() if not beside),
        unserved={name: beside for name, beside in missing.items() if beside},
        unfit=unfit,
    )


def _sizes(contract: Contract) -> dict[str, int]:
    """Form → bytes of one feature in all records; fewer logits only where there are more."""
    forms: dict[str, Contract] = {
        name: replace(contract, dtype=name, top_logits=None) for name in _TOLERANCE
    }
    kept, logits = contract.top_logits or _TOP, contract.features.get("logits")
    if logits and kept < logits[0]:
        forms[f"top {kept}"] = replace(contract, top_logits=kept)
    return {name: made.record_bytes * made.records for name, made in forms.items()}


def _reads(
    experiment: build.Experiment, recipe: Recipe
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """What each method reads of the teacher, or why it cannot work with this pair.

    Those of the recipe are as it says, all others as they are by default.
    """
    own = cast(Mapping[str, Method], experiment.distiller.trainable.methods)
    reads, unfit = {label: method.reads for label, method in own.items()}, {}
    teacher = cast(Teacher, experiment.distiller.teacher).network
    for name in methods.names():
        if name in reads:
            continue
        # A copy, because a method may add a layer to it.
        student = deepcopy(experiment.distiller.student)
        try:
            wired = wire.distiller(Recipe(methods={name: {}}), student, teacher, experiment.task)
            reads[name] = cast(Method, wired.trainable.methods[name]).reads
        except UnderstudyError as error:
            unfit[name] = str(error)
    return dict(sorted(reads.items())), unfit


def fill(
    recipe: Recipe,
    *,
    device: str | None = None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Bank:
    """Fill every empty record of a recipe's bank; goes on where an earlier filling stopped.

    Under torchrun every process fills its share of the images.

    Args:
        recipe: Names the bank, the teacher and the images.
        device: As for `train`.
        watch: Told after each batch how many records are stored, and of how many.

    Raises:
        BankError: The disk is too small, or the directory holds another bank.
    """
    source, loader = _opened(recipe, device)
    bank, total = source.bank, source.bank.contract.records
    done = bank.filled()
    _check_room(bank, total - done)
    for view in range(bank.contract.num_views):
        keys = _empty(bank, view)
        for (index, number), features in zip(keys, _computed(source, loader, keys), strict=True):
            bank.write(index, number, features)
            done += len(index)
            watch(done, total)
    return bank


def verify(recipe: Recipe, *, records: int = 512, device: str | None = None) -> Verified:
    """Compute random stored records again, and compare.

    Raises:
        BankError: The bank is empty, a byte was flipped, or the teacher gives something else.
    """
    source, loader = _opened(recipe, device)
    bank = source.bank
    sample = bank.sample(records)
    keys = _batches(*sample)
    if not keys:
        raise BankError(f"{bank.path} is empty; fill it with `understudy bank build`.")
    worst = 0.0
    for (index, number), fresh in zip(keys, _computed(source, loader, keys), strict=True):
        stored, again = bank.read(index, number), bank.rounded(fresh)
        for name, x in stored.items():
            gap = (x - again[name]).norm() / x.norm().clamp_min(1e-12)
            worst = max(worst, float(gap))
    if worst > _TOLERANCE[bank.contract.dtype]:
        raise BankError(
            f"{bank.path} differs from what the teacher gives by {worst:.1e} of the "
            "features' length; delete it and fill it again."
        )
    return Verified(len(sample[0]), worst)


def _built(recipe: Recipe, device: str | None) -> tuple[build.Experiment, Teacher]:
    experiment = build.experiment(recipe)
    teacher = experiment.distiller.teacher
    if teacher is None:
        raise RecipeError("A bank stores what a teacher gives: give --teacher.name.")
    distiller = experiment.distiller
    devices = accelerator(recipe.training, device, student=distiller.student)
    resolve(recipe.training, distiller, devices.device).apply(distiller)
    return experiment, teacher


def _opened(recipe: Recipe, device: str | None) -> tuple[Replay, Loader]:
    if not recipe.bank.path:
        raise RecipeError("The recipe names no bank: give a folder by --bank.path.")
    experiment, teacher = _built(recipe, device)
    with PartialState().main_process_first():  # which makes the bank, if there is none
        return bank_attach.opened(experiment, teacher, recipe), experiment.train


def _computed(source: Replay, loader: Loader, keys: Sequence[RecordKeys]) -> Iterator[Features]:
    """Yield the teacher's features of the views that belong to some records, batch by batch."""
    device = next(source.teacher.parameters()).device
    shown = [(index, shown_number(source.views, number)) for index, number in keys]
    for images in loader.show(shown):
        yield source.teacher(Batch.of(images.to(device)))


def _empty(bank: Bank, view: int) -> list[RecordKeys]:
    """Return the records of one view that are empty, for this process's images, in order."""
    processes = PartialState()
    images = torch.arange(bank.contract.num_images)
    images = images.tensor_split(processes.num_processes)[processes.process_index]
    left = images[~bank.has(images, torch.full_like(images, view))]
    return _batches(left, torch.full_like(left, view))


def _batches(index: Tensor, number: Tensor) -> list[RecordKeys]:
    parts = zip(torch.split(index, BATCH), torch.split(number, BATCH), strict=True)
    return [part for part in parts if len(part[0])]


def _seconds_per_image(experiment: build.Experiment, teacher: Teacher) -> float:
    """Of the teacher's forward pass, the second of two batches."""
    batches = experiment.everything.single_pass(augmented=True)
    device = next(teacher.parameters()).device
    batch = Batch.of(next(batches).images[:BATCH].to(device))
    for _ in range(2):
        started = time.perf_counter()
        teacher(batch)["penultimate"].sum().item()  # waits for the device
        seconds = time.perf_counter() - started
    return seconds / len(batch)


def _check_room(bank: Bank, records: int) -> None:
    needed = records * bank.contract.bytes // bank.contract.records
    free = files.free_bytes(bank.path)
    if free < needed:
        raise BankError(
            f"The rest of the bank needs {needed / 1e9:.2f} GB, and {bank.path} has "
            f"{free / 1e9:.2f} GB free: name another disk by bank.path, set bank.dtype to fp16, or "
            "let training store only what it meets."
        )
