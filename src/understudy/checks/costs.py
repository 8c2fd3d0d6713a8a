"""What a run will cost: its time, peak memory, and what it writes to disk."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from understudy import files
from understudy.bank import is_remote, local_folder
from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.checks.trial import STEPS
from understudy.experiment import bank_attach
from understudy.experiment.run_time import in_words, run_seconds
from understudy.experiment.run_time import size_in_words as _size

SHORT, OF_METHODS, SECONDS = True, True, 6.0

_STATES, _STUDENTS = 2, 2
"""Saved states and students of a run directory: the last ones, and those before or the best."""


def check(examined: Examined) -> Iterator[Finding]:
    """Predict the time of a run from some steps of it, and the bytes it writes."""
    recipe, trial = examined.resolved, examined.trial
    student = examined.experiment.distiller.student
    weights = sum(parameter.nbytes for parameter in student.parameters())
    written = _STATES * trial.state_bytes + _STUDENTS * weights
    facts = [f"its directory {_size(written)}"]
    if trial.memory_mb is not None:
        facts.insert(0, f"up to {_size(int(1e6 * trial.memory_mb))} of memory at its peak")
    if trial.step_seconds is not None:
        steps = len(examined.experiment.train)
        images = examined.images
        seconds = run_seconds(recipe, images, steps=steps, step_seconds=trial.step_seconds)
        facts.insert(
            0,
            f"about {in_words(seconds)} ({recipe.training.epochs:,} epochs of {steps:,} steps of "
            f"{1e3 * trial.step_seconds:,.0f} ms)",
        )
    text = ", ".join(facts)
    yield Finding("costs", "note", f"A run takes {text}, as far as its first {STEPS} steps tell.")
    yield from _disk(examined.out, written)
    yield from _bank(examined)


def _disk(folder: Path, needed: int) -> Iterator[Finding]:
    free = files.free_bytes(folder)
    if needed > free:
        yield Finding(
            "costs",
            "error",
            f"The directory of a run needs {_size(needed)}, and the disk of {folder} has "
            f"{_size(free)} free.",
            advice="Name a folder on another disk by --out.",
        )


def _bank(examined: Examined) -> Iterator[Finding]:
    """Compare the size of the bank of a recipe with the space on its disk, if it has one."""
    recipe, experiment = examined.resolved, examined.experiment
    teacher = experiment.distiller.teacher
    if not recipe.bank.path or teacher is None or not bank_attach.serves(experiment, recipe):
        return
    needed = bank_attach.contract(experiment, teacher, recipe).bytes
    folder = local_folder(recipe.bank.path)
    free = files.free_bytes(folder)
    if is_remote(recipe.bank.path):
        yield Finding(
            "costs",
            "note",
            f"The bank {recipe.bank.path} takes up to {_size(needed)}; the shards that are "
            f"read are kept in {folder}, where {_size(free)} are free.",
        )
        return
    yield Finding(
        "costs",
        "note",
        f"The bank {recipe.bank.path} takes up to {_size(needed)}; {_size(free)} are free there.",
    )
    if needed <= free or folder.is_dir():
        return
    smaller = replace(recipe, bank=replace(recipe.bank, dtype="fp16"))
    fits = recipe.bank.dtype == "fp32" and (
        bank_attach.contract(experiment, teacher, smaller).bytes <= free
    )
    yield Finding(
        "costs",
        "error",
        f"The bank needs {_size(needed)}, and {recipe.bank.path} has {_size(free)} free.",
        fix={"bank.dtype": "fp16"} if fits else {"bank.path": ""},
    )
