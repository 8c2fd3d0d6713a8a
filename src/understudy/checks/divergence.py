"""NaN or divergence in the first steps at the recipe's rate and precision, and a rate that works.

The steps are made on a student of their own, at the full rate: a warm-up only delays what a rate
does.
"""

from collections.abc import Iterator
from dataclasses import replace

from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.checks.trial import Trial
from understudy.config.limits import AUTO
from understudy.errors import RecipeError
from understudy.experiment import defaults

# Before `costs`, which looks at the same trial: this finding matters more.
SHORT, OF_METHODS, SECONDS = True, True, 5.9

CHECK = "divergence"

_GROWTH = 20.0
"""Loss at the end, as a multiple of the first, from which on training diverges.

Of healthy recipes the smallest loss of the last third of 12 steps was at most 1.15 times the first.
"""

_FEW = 6
_GROWTH_OF_FEW = 1000.0
"""The same of fewer steps, which a single high loss may end: healthy ones rose to 90 times."""

_STEADY = 1.25
"""Mean loss of the last third of the steps, as a multiple of the first, up to which a rate works.

At rates that train well, losses of single batches are up to a quarter above the first one.
"""

_BLOWN_UP = 200.0
"""Norm of all weights after the steps, as a multiple of that before, from which on it diverges.

Where the loss is bounded and the student normalises, as with a cosine and batch normalisation,
nothing but the weights tells: at rates at which students learn they grew to 25 times at most, at
ten times that rate to 10 to 100 times, and at a rate of 1000 to 900 times and more.
"""

_STEADY_GROWTH = 30.0
"""The same, up to which a rate works."""

_TRIES = 8

_FACTOR = 4.0
"""Factor by which the rate is lowered until the loss does not grow."""

_MOST = 4.0
"""Largest rate tried, as a multiple of that of a recipe that leaves it open.

With batch normalisation and bounded losses, 12 steps stay finite at rates at which nothing is
learnt.
"""


def check(examined: Examined) -> Iterator[Finding]:
    """Find losses that are not finite, or grow, in the first steps; look for a rate that works."""
    trial = examined.trial
    words = _diverges(trial)
    if not words:
        return
    training = examined.resolved.training
    lr = _working_rate(examined)
    said = f"With training.lr {training.lr:g} in {examined.placed.settings.precision}, {words}"
    if lr is None:
        yield Finding(
            CHECK,
            "error",
            f"{said}, and no smaller rate that was tried mends it.",
            advice="Check the weights of the methods, the labels and the precision.",
        )
    else:
        yield Finding(
            CHECK,
            "error",
            f"{said}; with training.lr {lr:g} the loss does not grow.",
            {"training.lr": lr},
        )


def _diverges(trial: Trial) -> str:
    """Return how a trial diverged, as a clause; empty if it did not."""
    steps = len(trial.losses)
    if trial.diverged or not steps:
        return f"a loss or a weight is not finite in step {steps + 1}"
    first, last = trial.losses[0]["total"], min(_last(trial))
    most = _GROWTH if steps >= _FEW else _GROWTH_OF_FEW
    if steps > 1 and last > most * max(first, 1e-9):
        return f"the loss grows from {first:.3g} to {last:.3g} in {steps} steps"
    if trial.growth > _BLOWN_UP:
        return f"the weights grow to {trial.growth:,.3g} times their size in {steps} steps"
    return ""


def _last(trial: Trial) -> list[float]:
    """Return the losses of the last third of the steps."""
    third = max(1, len(trial.losses) // 3)
    return [losses["total"] for losses in trial.losses[-third:]]


def _is_steady(trial: Trial) -> bool:
    """Return True if the mean loss of the last third of the steps is not far above the first.

    And if the weights are not far larger either.
    """
    last = _last(trial)
    if trial.growth > _STEADY_GROWTH:
        return False
    return sum(last) / len(last) <= _STEADY * trial.losses[0]["total"]


def _working_rate(examined: Examined) -> float | None:
    """Return the largest of some rates, rounded, with which the loss does not grow.

    They are halved: if one works, a larger one is tried, else a smaller one.
    """
    asked = examined.resolved.training.lr
    start = min(asked / _FACTOR, _MOST * (_usual_rate(examined) or asked))
    rates = [float(f"{start / _FACTOR**power:.1g}") for power in range(_TRIES)]
    works: float | None = None
    while rates and examined.seconds_left() > 0:
        middle = len(rates) // 2
        trial = examined.trial_at(rates[middle])
        if not trial.diverged and _is_steady(trial):
            works, rates = rates[middle], rates[:middle]
        else:
            rates = rates[middle + 1 :]
    return works


def _usual_rate(examined: Examined) -> float | None:
    """Return the rate that would be chosen if the recipe left it open; None if none is known."""
    recipe = examined.resolved
    still_open = replace(recipe, training=replace(recipe.training, lr=AUTO))
    student = examined.experiment.distiller.student
    try:
        chosen, _ = defaults.resolve(still_open, examined.images, student)
    except RecipeError:  # an optimizer of timm's
        return None
    return chosen.training.lr
