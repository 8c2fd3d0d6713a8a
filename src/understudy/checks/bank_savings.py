"""What a bank would save: the teacher's part of the time of a run."""

from collections.abc import Iterator
from dataclasses import replace

from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.config.recipe import key_of, key_of_bank
from understudy.distillation.distiller import Distillation
from understudy.experiment import bank_attach, bank_contract
from understudy.experiment.bank_plan import seconds_per_image
from understudy.experiment.networks import called
from understudy.experiment.run_time import in_words, run_seconds, size_in_words

SHORT, OF_METHODS, SECONDS = False, True, 8.0

_SHARE = 0.1
"""Share of a run from which the teacher's time is worth a bank."""


def check(examined: Examined) -> Iterator[Finding]:
    """Compare the time of each teacher's forward passes with that of the run."""
    for each in examined.experiment.distiller.distillations:
        bank = bank_contract.bank_of(examined.resolved, each.name)
        serves = bank_attach.serves(examined.experiment, each, examined.resolved)
        if not bank.path and each.methods and serves:
            yield from _savings(examined, each)


def _savings(examined: Examined, each: Distillation) -> Iterator[Finding]:
    recipe, experiment, trial = examined.resolved, examined.experiment, examined.trial
    if trial.step_seconds is None:
        return
    steps, epochs = len(experiment.train), recipe.training.epochs
    whole = run_seconds(recipe, examined.images, steps=steps, step_seconds=trial.step_seconds)
    passes = epochs * len(examined.images.train)
    teaching = min(passes * seconds_per_image(experiment, each.teacher), whole)
    if teaching < _SHARE * whole:
        return
    path, key = f"runs/bank/{each.name}".rstrip("/"), key_of_bank(each.name)
    banked = recipe.with_banks(lambda bank: replace(bank, views=epochs))
    contract = bank_contract.contract(experiment, each.teacher, banked)
    yield Finding(
        "bank_savings",
        "note",
        f"The {called(key_of(each.name))} takes about {in_words(teaching)} of the "
        f"{in_words(whole)} of a run. A bank would save that in every further run on these images: "
        f"other methods, students and seeds. "
        f"It takes up to {size_in_words(contract.bytes_after(epochs))}.",
        fix={f"{key}.path": path, f"{key}.views": epochs, "data.seed": recipe.seed},
    )
