"""Plan, fill and verify the bank of a recipe, apart from any training run."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from accelerate import PartialState
from jaxtyping import Int64
from torch import Tensor

from understudy import build, replay
from understudy.bank import Bank, Contract
from understudy.devices import accelerator, dtype_of
from understudy.distiller import Teacher
from understudy.errors import BankError, RecipeError
from understudy.recipe import Recipe
from understudy.replay import Replay

BATCH = 256
_TOLERANCE = {"fp32": 1e-4, "fp16": 2e-3}
"""Largest difference that another batch size and the stored type can make, of the length."""

Places = tuple[Int64[Tensor, " batch"], Int64[Tensor, " batch"]]
"""Image numbers, and the number of the view of each."""


@dataclass(frozen=True)
class Plan:
    """What a complete bank would take.

    Attributes:
        contract: What it holds.
        seconds: Of the teacher's forward passes on this machine, estimated from two batches.
        free_bytes: Of the disk it would lie on.
        more: Feature of the teacher that is not stored → bytes that it would add.
        unserved: Method of the recipe that reads more than is stored → what it reads.
    """

    contract: Contract
    seconds: float
    free_bytes: int
    more: dict[str, int]
    unserved: dict[str, tuple[str, ...]]


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
    contract = replay.contract(experiment, teacher, recipe)
    stored = set(contract.features)
    number_bytes = contract.record_bytes // sum(map(prod, contract.features.values()))
    methods = experiment.distiller.trainable.methods.items()
    return Plan(
        contract=contract,
        seconds=_seconds_per_image(experiment, teacher) * contract.records,
        free_bytes=shutil.disk_usage(_existing(Path(recipe.bank.path))).free,
        more={
            name: number_bytes * prod(shape) * contract.records
            for name, shape in teacher.network.shapes.items()
            if name not in stored
        },
        unserved={
            label: method.reads  # type: ignore[misc]
            for label, method in methods
            if not set(method.reads) <= stored  # type: ignore[arg-type]
        },
    )


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
    source = _opened(recipe, device)
    bank, total = source.bank, source.bank.contract.records
    done = bank.filled()
    _check_room(bank, total - done)
    processes = PartialState()
    for index, number in _empty(bank, processes.process_index, processes.num_processes):
        bank.write(index, number, _computed(source, index, number))
        done += len(index)
        watch(done, total)
    return bank


def verify(recipe: Recipe, *, records: int = 512, device: str | None = None) -> Verified:
    """Compute random stored records again, and compare.

    Raises:
        BankError: The bank is empty, a byte was flipped, or the teacher gives something else.
    """
    source = _opened(recipe, device)
    index, number = source.bank.sample(records)
    if not len(index):
        raise BankError(f"{source.bank.path} is empty; fill it with `understudy bank build`.")
    worst = 0.0
    for rows in torch.arange(len(index)).split(BATCH):  # type: ignore[no-untyped-call]
        stored = source.bank.read(index[rows], number[rows])
        fresh = _computed(source, index[rows], number[rows])
        for name, x in stored.items():
            gap = (x - fresh[name].float().cpu()).norm() / x.norm().clamp_min(1e-12)
            worst = max(worst, float(gap))
    if worst > _TOLERANCE[source.bank.contract.dtype]:
        raise BankError(
            f"{source.bank.path} differs from what the teacher gives by {worst:.1e} of the "
            "features' length; delete it and fill it again."
        )
    return Verified(len(index), worst)


def _built(recipe: Recipe, device: str | None) -> tuple[build.Experiment, Teacher]:
    experiment = build.experiment(recipe)
    teacher = experiment.distiller.teacher
    if teacher is None:
        raise RecipeError("A bank stores what a teacher gives: give --teacher.name.")
    devices = accelerator(recipe.training, device)
    teacher.to(devices.device).precision = dtype_of(devices)
    return experiment, teacher


def _opened(recipe: Recipe, device: str | None) -> Replay:
    if not recipe.bank.path:
        raise RecipeError("The recipe names no bank: give a folder by --bank.path.")
    experiment, teacher = _built(recipe, device)
    with PartialState().main_process_first():  # which makes the bank, if there is none
        return replay.opened(experiment, teacher, recipe)


def _computed(source: Replay, index: Tensor, number: Tensor) -> dict[str, Tensor]:
    device = next(source.teacher.parameters()).device
    features: dict[str, Tensor] = source.teacher(source.views.show(index, number).to(device))
    return features


def _empty(bank: Bank, rank: int, world: int) -> Iterator[Places]:
    """Places without a record among this process's images, a batch of one view after the other."""
    images = torch.arange(rank, bank.contract.num_images, world)
    for view in range(bank.contract.num_views):
        number = torch.full_like(images, view)
        left = images[~bank.has(images, number)]
        for part in left.split(BATCH):  # type: ignore[no-untyped-call]
            if len(part):
                yield part, number[: len(part)]


def _seconds_per_image(experiment: build.Experiment, teacher: Teacher) -> float:
    """Of the teacher's forward pass, the second of two batches."""
    batches = experiment.everything.once(augmented=True)
    device = next(teacher.parameters()).device
    images = next(batches).images[:BATCH].to(device)
    for _ in range(2):
        started = time.perf_counter()
        teacher(images)["penultimate"].sum().item()  # waits for the device
        seconds = time.perf_counter() - started
    return seconds / len(images)


def _check_room(bank: Bank, records: int) -> None:
    needed = records * bank.contract.bytes // bank.contract.records
    free = shutil.disk_usage(bank.path).free
    if free < needed:
        raise BankError(
            f"The rest of the bank needs {needed / 1e9:.2f} GB, and {bank.path} has "
            f"{free / 1e9:.2f} GB free: name another disk by bank.path, set bank.dtype to fp16, or "
            "let training store only what it meets."
        )


def _existing(path: Path) -> Path:
    whole = path.resolve()
    return next(folder for folder in (whole, *whole.parents) if folder.is_dir())
