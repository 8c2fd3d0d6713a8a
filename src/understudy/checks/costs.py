"""What a run will cost, and all runs of a comparison: time, peak memory, and bytes on the disk."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import final

from understudy import files
from understudy.bank import is_remote, local_folder
from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.checks.plan import Plan
from understudy.checks.trial import STEPS
from understudy.config.recipe import Bank, key_of_bank
from understudy.distillation.distiller import Distillation
from understudy.experiment import bank_attach, bank_contract
from understudy.experiment.run_time import in_words, run_seconds
from understudy.experiment.run_time import size_in_words as _size

SHORT, OF_METHODS, SECONDS = True, True, 6.0

CHECK = "costs"

_STATES, _STUDENTS = 2, 2
"""Saved states and students of a run directory: the last ones, and those before or the best."""


@final
@dataclass(frozen=True)
class Cost:
    """What one run costs.

    Attributes:
        seconds: Its time; None where one step alone was made.
        bytes: Size of its directory.
    """

    seconds: float | None
    bytes: int

    @classmethod
    def of(cls, examined: Examined) -> "Cost":
        """Predict the cost of a run from some steps of it."""
        trial, experiment = examined.trial, examined.experiment
        student = experiment.distiller.student
        weights = sum(parameter.nbytes for parameter in student.parameters())
        seconds = None
        if trial.step_seconds is not None:
            steps = len(experiment.train)
            recipe, images = examined.resolved, examined.images
            seconds = run_seconds(recipe, images, steps=steps, step_seconds=trial.step_seconds)
        return cls(seconds, _STATES * trial.state_bytes + _STUDENTS * weights)


def check(examined: Examined) -> Iterator[Finding]:
    """Predict the time of a run from some steps of it, and the bytes it writes."""
    recipe, trial, cost = examined.resolved, examined.trial, Cost.of(examined)
    facts = [f"its directory {_size(cost.bytes)}"]
    if trial.memory_mb is not None:
        facts.insert(0, f"up to {_size(int(1e6 * trial.memory_mb))} of memory at its peak")
    if cost.seconds is not None and trial.step_seconds is not None:
        facts.insert(
            0,
            f"about {in_words(cost.seconds)} ({recipe.training.epochs:,} epochs of "
            f"{len(examined.experiment.train):,} steps of {1e3 * trial.step_seconds:,.0f} ms)",
        )
    text = ", ".join(facts)
    yield Finding(CHECK, "note", f"A run takes {text}, as far as its first {STEPS} steps tell.")
    if not examined.plan:  # of whose runs `of_all` tells
        yield from _disk(examined.out, "The directory of a run needs", cost.bytes)
    yield from _bank(examined)


def of_all(arms: Sequence[Examined], plan: Plan, *, count: int) -> Iterator[Finding]:
    """Predict the time of all runs of a comparison or a search, and the bytes they write.

    Args:
        arms: Arms whose first steps were tried; others are taken to cost as much on average.
        plan: All runs.
        count: Number of all arms.
    """
    costs = [Cost.of(arm) for arm in arms]
    times = [cost.seconds for cost in costs if cost.seconds is not None]
    # A control is at most as large, and its steps at most as long, as those of its smallest arm.
    written = plan.runs * count * mean(cost.bytes for cost in costs)
    written += plan.controls * min(cost.bytes for cost in costs)
    banked = _shared_banks(arms, plan)
    facts = [f"they write {_size(int(written))}"]
    if banked:
        facts.append(f"and their bank takes up to {_size(banked)}")
    if times:
        trained = plan.controls if arms[0].task.uses_labels else 0
        seconds = plan.whole * count * mean(times) + trained * min(times)
        saved = " at most, as a bank saves the teacher's part of most," if banked else ""
        facts.insert(0, f"about {in_words(seconds)}{saved} if one follows the other")
    yield Finding(CHECK, "note", f"All in all {plan.words}: {', '.join(facts)}.")
    yield from _disk(arms[0].out, f"All in all {plan.words} need", int(written) + banked)


def _shared_banks(arms: Sequence[Examined], plan: Plan) -> int:
    """Return the bytes of the banks that the runs make, which arms of the same teacher share."""
    sizes: dict[str, int] = {}
    for arm in arms:
        experiment, recipe = arm.experiment, arm.resolved
        banked, count = plan.bank(recipe, experiment)
        for each in experiment.distiller.distillations:
            path = bank_contract.bank_of(banked, each.name).path
            if bank_contract.bank_of(recipe, each.name).path or not path:
                continue
            contract = bank_contract.contract(experiment, each.teacher, banked)
            size = contract.bytes_after(recipe.training.epochs) * count
            sizes[path] = max(size, sizes.get(path, 0))
    return sum(sizes.values())


def _disk(folder: Path, words: str, needed: int) -> Iterator[Finding]:
    free = files.free_bytes(folder)
    if needed > free:
        yield Finding(
            CHECK,
            "error",
            f"{words} {_size(needed)}, and the disk of {folder} has {_size(free)} free.",
            advice="Name a folder on another disk by --out.",
        )


def _bank(examined: Examined) -> Iterator[Finding]:
    """Compare the size of each teacher's bank with the space on its disk."""
    experiment = examined.experiment
    boxes = experiment.task.truth == "objects"
    for each in experiment.distiller.distillations:
        bank = bank_contract.bank_of(examined.resolved, each.name)
        served = boxes or bank_attach.serves(experiment, each, examined.resolved)
        if bank.path and each.methods and served:
            yield from _bank_of(examined, each, bank)


def _bank_of(examined: Examined, each: Distillation, bank: Bank) -> Iterator[Finding]:
    by_size = bank_contract.contracts(examined.experiment, each.teacher, examined.resolved)
    contracts = list(by_size.values())
    needed = sum(contract.bytes for contract in contracts)
    record = f"{round(needed / sum(contract.records for contract in contracts)):,} bytes"
    folder = local_folder(bank.path)
    free = files.free_bytes(folder)
    if is_remote(bank.path):
        yield Finding(
            CHECK,
            "note",
            f"The bank {bank.path} takes up to {_size(needed)}, {record} for each view of an "
            f"image; the shards that are read are kept in {folder}, where {_size(free)} are free.",
        )
        return
    yield Finding(
        CHECK,
        "note",
        f"The bank {bank.path} takes up to {_size(needed)}, {record} for each view of an "
        f"image; {_size(free)} are free there.",
    )
    if needed <= free or folder.is_dir():
        return
    halved = sum(replace(contract, dtype="fp16").bytes for contract in contracts)
    fits = bank.dtype == "fp32" and halved <= free
    key = key_of_bank(each.name)
    yield Finding(
        CHECK,
        "error",
        f"The bank needs {_size(needed)}, and {bank.path} has {_size(free)} free.",
        fix={f"{key}.dtype": "fp16"} if fits else {f"{key}.path": ""},
    )
