"""Keys that a run is too short for, and a run that is too short to learn anything."""

from collections.abc import Iterator
from math import ceil

from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.experiment.defaults import starts_from_weights
from understudy.experiment.evidence import FEWEST_STEPS, few_steps
from understudy.training.too_short import unreached

SHORT, OF_METHODS, SECONDS = True, True, 0.1

CHECK = "schedule"


def check(examined: Examined) -> Iterator[Finding]:
    """Find keys whose effect the run does not reach, and runs of a handful of steps."""
    experiment, recipe = examined.experiment, examined.resolved
    weights, steps = experiment.distiller.weights, len(experiment.train)
    for key in unreached(recipe.training, weights, steps):
        yield Finding(CHECK, "warning", key.message, key.fix)
    sentence = few_steps(recipe.training.epochs * steps)
    if sentence and not starts_from_weights(recipe):
        epochs = ceil(FEWEST_STEPS / steps)
        yield Finding(CHECK, "warning", sentence, {"training.epochs": epochs})
