"""Keys of a recipe that do not take effect because the run is too short for them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from understudy.config.recipe import Training
from understudy.distillation.weights import Weight

_LARGEST_SHARE = 0.5
"""Share of an averaged student that its first step may have."""


_SHORT_WARMUP = 0.1
"""Share of the epochs of a warm-up that fits into the run."""


@dataclass(frozen=True)
class Unreached:
    """A key whose effect a run does not reach.

    Attributes:
        message: What is not reached, and which key to set.
        fix: Keys of the recipe, dotted → values with which the run reaches it.
    """

    message: str
    fix: dict[str, Any] = field(default_factory=dict)


def unreached(
    training: Training, weights: Mapping[str, Weight], steps_per_epoch: int
) -> Iterator[Unreached]:
    """Yield every key whose effect the run does not reach, or not in full.

    Args:
        training: Schedule and number of epochs.
        weights: Weight of `task` and of every method.
        steps_per_epoch: Optimizer steps of an epoch.
    """
    yield from _schedule(training)
    epochs = training.epochs
    for name, weight in weights.items():
        reached = weight.at(epochs - 1)
        if reached < weight.value:
            yield Unreached(
                f"The weight of {name} rises over {weight.warmup_epochs:g} epochs, but there are "
                f"{epochs}: it reaches {reached:.3g} of {weight.value:g}. Set more "
                "training.epochs, or a shorter warmup_epochs of the weight.",
                _shorter_rise(name, weight, epochs),
            )
    yield from _average(training, epochs * steps_per_epoch)
    if training.evaluate_every > epochs:
        yield Unreached(
            f"With training.evaluate_every {training.evaluate_every} and {_epochs(epochs)}, the "
            "last epoch alone is evaluated.",
            {"training.evaluate_every": 1},
        )


def _shorter_rise(name: str, weight: Weight, epochs: int) -> dict[str, Any]:
    """Return the weight of a method with a warm-up of a tenth of the run, or none."""
    rise = float(min(round(_SHORT_WARMUP * epochs), epochs - 1))
    counts_from = weight.warmup_counts_from
    value = {"value": weight.value, "warmup_epochs": rise, "warmup_counts_from": counts_from}
    return {f"methods.{name}.weight": value if rise else weight.value}


def _average(training: Training, steps: int) -> Iterator[Unreached]:
    share = (training.ema or 0.0) ** (steps - 1)
    if training.ema and share > _LARGEST_SHARE:
        yield Unreached(
            f"The moving average of decay {training.ema:g} is longer than the {steps:,} steps of "
            f"this run: {100 * share:.0f} % of the student that is evaluated and saved will be "
            "the weights after the first step. Set a smaller training.ema, or leave it out.",
            {"training.ema": None},
        )


def _schedule(training: Training) -> Iterator[Unreached]:
    epochs = training.epochs
    if training.warmup_epochs >= epochs:
        yield Unreached(
            f"The learning rate rises over {training.warmup_epochs:g} epochs, but there are "
            f"{epochs}: it never reaches training.lr {training.lr:g}. Set a shorter "
            "training.warmup_epochs.",
            {"training.warmup_epochs": _SHORT_WARMUP * epochs},
        )
    late = [milestone for milestone in training.milestones if milestone >= epochs]
    if training.schedule != "step" or training.gamma == 1 or not late:
        return
    if len(late) == len(training.milestones):
        yield Unreached(
            f"The learning rate never falls: the milestones {_listed(late)} are not before the end "
            f"of {_epochs(epochs)}. Set training.milestones, or training.schedule to cosine.",
            {"training.schedule": "cosine"},
        )
        return
    yield Unreached(
        f"The learning rate does not fall at {_listed(late)}, which is not before the end of "
        f"{_epochs(epochs)}: it falls {_times(len(training.milestones) - len(late))}. Set "
        "training.milestones.",
        {"training.milestones": [m for m in training.milestones if m < epochs]},
    )


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count != 1)}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _listed(milestones: Sequence[int]) -> str:
    return ", ".join(map(str, milestones))
