"""A schedule, a warm-up or a moving average that is longer than the run."""

from collections.abc import Iterator

from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.training.too_short import unreached

SHORT, OF_METHODS, SECONDS = True, True, 0.1

CHECK = "schedule"


def check(examined: Examined) -> Iterator[Finding]:
    """Find keys whose effect the run does not reach."""
    experiment = examined.experiment
    weights, steps = experiment.distiller.weights, len(experiment.train)
    for key in unreached(examined.resolved.training, weights, steps):
        yield Finding(CHECK, "warning", key.message, key.fix)
