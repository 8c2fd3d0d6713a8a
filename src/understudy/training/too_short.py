"""Keys of a recipe that do not take effect because the run is too short for them."""

from collections.abc import Iterator, Mapping

from understudy.config.recipe import Training
from understudy.distillation.weights import Weight

_LARGEST_SHARE = 0.5
"""Share of an averaged student that its first step may have."""


def unreached(
    training: Training, weights: Mapping[str, Weight], steps_per_epoch: int
) -> Iterator[str]:
    """Yield a sentence for every key whose effect the run does not reach, or not in full.

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
            yield (
                f"The weight of {name} rises over {weight.warmup_epochs:g} epochs, but there are "
                f"{epochs}: it reaches {reached:.3g} of {weight.value:g}. Set more "
                "training.epochs, or a shorter warmup_epochs of the weight."
            )
    share = (training.ema or 0.0) ** (epochs * steps_per_epoch - 1)
    if training.ema and share > _LARGEST_SHARE:
        yield (
            f"The moving average of decay {training.ema:g} is longer than the "
            f"{epochs * steps_per_epoch:,} steps of this run: {100 * share:.0f} % of the student "
            "that is evaluated and saved will be the weights after the first step. Set a smaller "
            "training.ema, or leave it out."
        )
    if training.evaluate_every > epochs:
        yield (
            f"With training.evaluate_every {training.evaluate_every} and {_epochs(epochs)}, the "
            "last epoch alone is evaluated."
        )


def _schedule(training: Training) -> Iterator[str]:
    epochs = training.epochs
    if training.warmup_epochs >= epochs:
        yield (
            f"The learning rate rises over {training.warmup_epochs:g} epochs, but there are "
            f"{epochs}: it never reaches training.lr {training.lr:g}. Set a shorter "
            "training.warmup_epochs."
        )
    late = [milestone for milestone in training.milestones if milestone >= epochs]
    if training.schedule != "step" or training.gamma == 1 or not late:
        return
    if len(late) == len(training.milestones):
        yield (
            f"The learning rate never falls: the milestones {_listed(late)} are not before the end "
            f"of {_epochs(epochs)}. Set training.milestones, or training.schedule to cosine."
        )
        return
    yield (
        f"The learning rate does not fall at {_listed(late)}, which is not before the end of "
        f"{_epochs(epochs)}: it falls {len(training.milestones) - len(late)} times. Set "
        "training.milestones."
    )


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count != 1)}"


def _listed(milestones: list[int]) -> str:
    return ", ".join(map(str, milestones))
