"""Plan the bank of a recipe: its bytes in every form, the teacher's hours, and whom it serves."""

import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import torch

from understudy import files, methods
from understudy.bank import BATCH, Contract, is_remote, local_folder
from understudy.bank.codecs import DType
from understudy.bank.manifest import CHECK_BYTES
from understudy.batch import Batch
from understudy.config.recipe import Recipe
from understudy.distillation import wire
from understudy.distillation.distiller import Teacher
from understudy.distillation.memory_parts import MemoryParts
from understudy.distillation.stored_maps import maps_alone
from understudy.errors import UnderstudyError
from understudy.experiment import bank_contract, build
from understudy.experiment.bank_build import built
from understudy.methods import Method
from understudy.models.detection import images_of
from understudy.training import hardware

_TIMED = 4
"""Images of which a detector's maps are timed, at most."""

_TOP = 10
"""Number of stored logits in a plan where the recipe does not say how many to store."""


@dataclass(frozen=True)
class Plan:
    """Cost of a complete bank, and the methods it would serve.

    Attributes:
        contract: What its records depend on; of a detector's maps, those of the most frequent size.
        records: Number of records.
        bytes: Bytes of all records.
        paddings: Number of sizes to which a detector's images are padded; 1 for whole images.
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
    records: int
    bytes: int
    paddings: int
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

    @property
    def record_bytes(self) -> int:
        """Bytes of a record, on average, without its checksum."""
        return round(self.bytes / self.records) - CHECK_BYTES


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
    contracts = [*bank_contract.contracts(experiment, teacher, recipe).values()]
    contract = max(contracts, key=lambda each: each.num_images)
    records, size = (sum(getattr(x, name) for x in contracts) for name in ("records", "bytes"))
    boxes = experiment.task.truth == "objects"
    shapes = dict(contract.features if boxes else teacher.network.shapes)
    reads, unfit = _reads(experiment, recipe)
    # All that a detector gives is computed from its maps.
    missing = {
        name: () if boxes else tuple(sorted(set(read) - set(contract.features)))
        for name, read in reads.items()
    }
    few_views = experiment.train.views.count is not None
    folder = local_folder(recipe.bank.path)
    return Plan(
        contract=contract,
        records=records,
        bytes=size,
        paddings=len(contracts),
        seconds=seconds_per_image(experiment, teacher) * records,
        free_bytes=files.free_bytes(folder),
        kept_in=folder if is_remote(recipe.bank.path) else None,
        memory_bytes=hardware.available_memory(),
        hot_bytes=size if few_views else size // contract.num_views,
        shapes=shapes,
        sizes={
            name: _sizes([_only(each, name, shape) for each in contracts])
            for name, shape in shapes.items()
        },
        serves=tuple(name for name, features in missing.items() if not features),
        unserved={name: features for name, features in missing.items() if features},
        unfit=unfit,
    )


def _only(contract: Contract, name: str, shape: tuple[int, ...]) -> Contract:
    """Return the contract of a bank of one feature, which this one may not store."""
    return replace(contract, features={name: contract.features.get(name, shape)})


def _sizes(contracts: list[Contract]) -> dict[str, int]:
    """Return form → bytes of one feature in all records; `top n` only of more logits than n."""
    forms = [_forms(contract) for contract in contracts]
    return {name: sum(form[name] for form in forms) for name in forms[0]}


def _forms(contract: Contract) -> dict[str, int]:
    forms = {
        name: replace(contract, dtype=name, top_logits=None)
        for name in get_args(DType)
        if name != "bits"
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
            wired = wire.distiller(
                Recipe(methods={name: {}}), student, {"": teacher}, experiment.task
            )
            reads[name] = cast(Method, wired.trainable.methods[name]).reads
        except UnderstudyError as error:
            unfit[name] = str(error)
    return dict(sorted(reads.items())), unfit


def seconds_per_image(experiment: build.Experiment, teacher: Teacher) -> float:
    """Return the time of the teacher's forward pass for an image, from the second of two batches.

    The first one includes what is done once, such as the choice of algorithms.
    """
    if experiment.task.truth == "objects":
        return _seconds_of_maps(experiment, teacher)
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


def _seconds_of_maps(experiment: build.Experiment, teacher: Teacher) -> float:
    """Return the time of a detector's maps of an image, as `seconds_per_image`."""
    batch = next(experiment.everything.single_pass(augmented=True))
    images = images_of(batch.to(teacher.network.device, torch.contiguous_format))[:_TIMED]
    for _ in range(2):
        started = time.perf_counter()
        for image in images:
            maps = maps_alone(teacher, experiment.distiller.student, [image])
            sum(float(x.sum()) for x in maps.values())  # waits for the device
        seconds = time.perf_counter() - started
    return seconds / len(images)
