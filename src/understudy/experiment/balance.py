"""Weights of the methods of a recipe with `weights: auto`, found by gradients before training.

The weight of every method is such that the gradients of all methods together are as long as that of
the weighted loss on labels, each contributing the same part: task_weight / (methods · ratio), where
`ratio` is that of `distillation.loss_scales`, measured on the student's shared parameters before
the first step. Without a loss on labels the first method keeps its weight, and the others are made
as strong as it is. A warm-up of a weight stays as it is.

The weights are found once and then written in the place of those that were not: in the
`recipe.yaml` of a run, which is continued with them, and for all seeds of an arm of a comparison,
which finds them with its first seed. They come from the live teacher on the first batches of the
first epoch, so that a bank changes nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from itertools import chain, islice
from math import isfinite

from accelerate.utils import broadcast_object_list

from understudy.batch import Batch
from understudy.config.limits import AUTO
from understudy.config.recipe import Recipe, key_of_method
from understudy.distillation.distiller import Distiller, Weight
from understudy.distillation.loss_scales import TASK, LossScale, loss_scales
from understudy.experiment.build import Experiment
from understudy.training.devices import ComputeSettings

BATCHES = 8
"""Training batches of which the mean gradient is taken."""


def balanced(
    recipe: Recipe, experiment: Experiment, settings: ComputeSettings | None = None
) -> tuple[Recipe, dict[str, str]]:
    """Find the weights of the methods, and set them in the experiment too.

    Args:
        recipe: What the experiment was built from; returned as it is unless its `weights` are
            `auto`.
        experiment: Built, on its device, its methods prepared.
        settings: How the student will compute; None for full precision.

    Returns:
        The recipe with the weights written out, and the reason for each of them.

    Raises:
        UnderstudyError: A loss cannot be computed.
    """
    if recipe.weights != AUTO:
        return recipe, {}
    if not recipe.each_method:
        return replace(recipe, weights="published"), {}
    distiller = experiment.distiller
    dtype = settings.dtype if settings else None
    scales = loss_scales(distiller, _batches(experiment), precision=dtype, seed=recipe.seed)
    shared = [_found(recipe, scales, distiller)]
    # All processes train with the weights of the first, whose batches are others.
    broadcast_object_list(shared)
    weights, reasons = shared[0]
    for label, value in weights.items():
        distiller.weights[label] = replace(distiller.weights[label], value=value)
    return written(recipe, distiller), reasons


def written(recipe: Recipe, distiller: Distiller) -> Recipe:
    """Return a recipe whose methods have the weights of a distiller, and which finds none."""
    methods = {
        label: {**keys, "weight": _plain(distiller.weights[label])}
        for label, keys in recipe.each_method.items()
    }
    return replace(recipe.with_methods(methods), weights="published")


def adopted_weights(recipe: Recipe, before: Recipe) -> Recipe:
    """Return a recipe with `weights: auto` with those that a run of the same has found before.

    Args:
        recipe: What is asked for; returned as it is if it is not `auto`.
        before: Recipe of a run of the same methods, which may have stopped before it found any.
    """
    known = before.each_method
    same = recipe.each_method.keys() == known.keys()
    if recipe.weights != AUTO or before.weights == AUTO or not same:
        return recipe
    methods = {
        label: {**keys, "weight": known[label].get("weight")}
        for label, keys in recipe.each_method.items()
    }
    return replace(recipe.with_methods(methods), weights="published")


def _found(
    recipe: Recipe, scales: Mapping[str, LossScale], distiller: Distiller
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the weight of every method, and the reason."""
    labels = list(recipe.each_method)
    first = labels[0]
    by_labels = scales.get(TASK) is not None and recipe.task_weight > 0
    share, than = recipe.task_weight / len(labels), "the labels"
    if not by_labels:
        share, than = distiller.weights[first].value, first
    weights, reasons = {}, {}
    for label in labels:
        ratio = scales[label].ratio
        if not by_labels:
            ratio = _divided(scales[label].gradient_norm, scales[first].gradient_norm)
        if not ratio or not isfinite(ratio):
            weights[label] = distiller.weights[label].value
            reasons[f"{key_of_method(label)}.weight"] = (
                "as published: no gradient could be measured"
            )
            continue
        weights[label] = float(f"{share / ratio:.3g}")
        reasons[f"{key_of_method(label)}.weight"] = (
            f"its gradient is {ratio:.3g} times that of {than}, before training"
        )
    return weights, reasons


def _divided(one: float, other: float) -> float | None:
    return one / other if other else None


def _batches(experiment: Experiment) -> Iterator[Batch]:
    """Yield the first training batches of the run."""
    return islice(chain.from_iterable(experiment.train.epoch(0)), BATCHES)


def _plain(weight: Weight) -> object:
    """Return a weight as a recipe states it: a number, if it does not rise."""
    return asdict(weight) if weight.warmup_epochs else weight.value
