"""Learning rate schedules as pure functions: factors by which the peak rate is multiplied.

Steps and epochs are counted from 0. So "x0.1 after epochs 150, 180 and 210", as published protocols
say, means that the 151st epoch, number 150, is the first at the lower rate.
"""

from collections.abc import Iterable
from math import cos, pi

from understudy.config.recipe import Training


def learning_rate(training: Training, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of optimizer step `step`, counted over all epochs."""
    epoch = step / steps_per_epoch
    factors = {
        "constant": 1.0,
        "step": milestones(epoch, training.milestones, training.gamma),
        "cosine": cosine(epoch, training.epochs),
        "linear": linear(epoch, training.epochs),
    }
    rise = warmup(step, training.warmup_epochs * steps_per_epoch)
    return training.lr * rise * factors[training.schedule]


def milestones(epoch: float, at: Iterable[float], gamma: float = 0.1) -> float:
    """Return `gamma` to the power of how many milestones are reached; epoch 149.9 is before 150."""
    return gamma ** sum(epoch >= milestone for milestone in at)


def cosine(now: float, end: float) -> float:
    """Return half a cosine from 1 at 0 to 0 at `end`, in epochs or in steps."""
    return (1 + cos(pi * now / end)) / 2


def linear(now: float, end: float) -> float:
    """Return a straight line from 1 at 0 to 0 at `end`, in epochs or in steps."""
    return 1 - now / end


def warmup(now: float, end: float, start: float = 0.0) -> float:
    """Return a straight line from `start` at 0 to 1 at `end` and after, in epochs or in steps."""
    return start + (1 - start) * now / end if now < end else 1.0
