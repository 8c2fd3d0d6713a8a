"""What a bank would save: the teacher's part of the time of a run."""

from collections.abc import Iterator
from dataclasses import replace

from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.experiment import bank_attach
from understudy.experiment.bank_plan import seconds_per_image
from understudy.experiment.run_time import in_words, run_seconds, size_in_words

SHORT, OF_METHODS, SECONDS = False, True, 8.0

_SHARE = 0.1
"""Share of a run from which the teacher's time is worth a bank."""


def check(examined: Examined) -> Iterator[Finding]:
    """Compare the time of the teacher's forward passes with that of the run."""
    recipe, experiment, trial = examined.resolved, examined.experiment, examined.trial
    teacher = experiment.distiller.teacher
    if recipe.bank.path or teacher is None or trial.step_seconds is None or not recipe.methods:
        return
    if not bank_attach.serves(experiment, recipe):
        return
    steps, epochs = len(experiment.train), recipe.training.epochs
    whole = run_seconds(recipe, examined.images, steps=steps, step_seconds=trial.step_seconds)
    passes = epochs * len(examined.images.train)
    teaching = min(passes * seconds_per_image(experiment, teacher), whole)
    if teaching < _SHARE * whole:
        return
    banked = replace(recipe, bank=replace(recipe.bank, path="runs/bank", views=epochs))
    contract = bank_attach.contract(experiment, teacher, banked)
    views = min(contract.num_views, epochs)
    yield Finding(
        "bank_savings",
        "note",
        f"The teacher takes about {in_words(teaching)} of the {in_words(whole)} of a run. A bank "
        f"would save that in every further run on these images: other methods, students and seeds. "
        f"It takes up to {size_in_words(contract.record_bytes * contract.num_images * views)}.",
        fix={"bank.path": "runs/bank", "bank.views": epochs, "data.seed": recipe.seed},
    )
