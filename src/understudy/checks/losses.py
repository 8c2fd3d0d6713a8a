"""Size of every loss, and of its gradient beside that of the loss on labels, before training.

The ratio is taken on the parameters that both losses reach, and times the weights. With the
published weights of 23 methods on the pairs of the demonstrations it lies between 0.015 and 88, on
a network of 8 channels up to 2,100: a term a decade below changes nothing, and beside one far above
the labels do not.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.config.limits import AUTO
from understudy.config.recipe import Recipe, key_of_method
from understudy.distillation.loss_scales import TASK, LossScale, loss_scales
from understudy.distillation.weights import Weight

SHORT, OF_METHODS, SECONDS = True, True, 2.0

CHECK = "losses"

_BATCHES = {True: 2, False: 8}
_BUDGET = {True: 3.0, False: 12.0}
"""Batches that are measured, and seconds for them, by whether the form is the short one."""

_FEW, _FEW_WITH_BOXES = 8, 2
"""Images that are measured whatever they take: by their time, how many more there are. A detector
takes seconds for each; two are the fewest that every batch normalisation takes."""

_IGNORED, _OVERWHELMING = 1e-3, 1e4
"""Weighted ratios of gradients below and above which one of two terms has no effect."""


def check(examined: Examined) -> Iterator[Finding]:
    """Compare the terms of the loss, and find those that take no part."""
    if not examined.recipe.each_method:
        return
    distiller = examined.prepared.distiller
    scales, images = _measured(examined)
    weights = distiller.weights
    balanced = examined.recipe.weights == AUTO
    later = "; the weights are balanced before training (weights: auto)" * balanced
    yield Finding(CHECK, "note", f"{_table(scales, weights)} ({images} images){later}.")
    for label, scale in scales.items():
        # Weights that will be replaced are no fault.
        if label != TASK and (scale.gradient_norm == 0 or not balanced):
            yield from _findings(examined.recipe, label, scale, weights)


def _measured(examined: Examined) -> tuple[dict[str, LossScale], int]:
    """Return the scales, and on how many images: as many as there is time for."""
    distiller, batches = examined.prepared.distiller, examined.batches(_BATCHES[examined.short])
    precision = examined.placed.settings.dtype
    fewest = _FEW_WITH_BOXES if examined.task.truth == "objects" else _FEW
    few, began = batches[0][:fewest], time.monotonic()
    scales = loss_scales(distiller, [few], precision=precision)
    seconds = max(time.monotonic() - began, 1e-6)
    affordable = int(len(few) * _BUDGET[examined.short] / seconds)
    if min(affordable, len(batches[0])) <= len(few):
        return scales, len(few)
    whole = batches[: affordable // len(batches[0])] or [batches[0][:affordable]]
    return loss_scales(distiller, whole, precision=precision), sum(map(len, whole))


def _table(scales: Mapping[str, LossScale], weights: Mapping[str, Weight]) -> str:
    rows = []
    for label, scale in scales.items():
        ratio = _weighted(label, scale, weights)
        beside = ""
        if label != TASK and ratio:
            equal = _suggested(scale, weights)
            beside = (
                f": its gradient is {ratio:.2g} times that of the labels (a weight of {equal:g} "
                "makes both equal)"
            )
        name = "labels" if label == TASK else label
        rows.append(f"{name} {scale.loss:.3g}, weight {weights[label].value:g}{beside}")
    return f"Losses before training: {'; '.join(rows)}"


def _weighted(label: str, scale: LossScale, weights: Mapping[str, Weight]) -> float | None:
    """Return the weighted ratio of gradients; None without a loss on labels."""
    of_task = weights[TASK].value
    if scale.ratio is None or not of_task:
        return None
    return scale.ratio * weights[label].value / of_task


def _findings(
    recipe: Recipe, label: str, scale: LossScale, weights: Mapping[str, Weight]
) -> Iterator[Finding]:
    weight, ratio = weights[label].value, _weighted(label, scale, weights)
    if not weight and recipe.weights != AUTO:
        yield Finding(
            CHECK,
            "warning",
            f"The weight of {label} is 0: its loss is computed and changes nothing.",
            _reweighted(recipe, label, _suggested(scale, weights)),
        )
    elif scale.gradient_norm == 0:
        yield Finding(
            CHECK,
            "warning",
            f"The loss of {label} is {scale.loss:.3g} and has no gradient on the student: it is "
            "constant.",
            advice=f"Leave {label} out, or check what the recipe lets train (training.only).",
        )
    elif ratio is not None and ratio < _IGNORED:
        yield Finding(
            CHECK,
            "warning",
            f"With its weight of {weight:g}, the gradient of {label} is {ratio:.2g} of that of "
            "the loss on labels: it changes next to nothing.",
            _reweighted(recipe, label, _suggested(scale, weights)),
        )
    elif ratio is not None and ratio > _OVERWHELMING:
        yield Finding(
            CHECK,
            "warning",
            f"With its weight of {weight:g}, the gradient of {label} is {ratio:,.0f} times that "
            "of the loss on labels, which changes next to nothing.",
            _reweighted(recipe, label, _suggested(scale, weights)),
        )


def _suggested(scale: LossScale, weights: Mapping[str, Weight]) -> float:
    """Return the weight with which both gradients are equally large, to two digits."""
    of_task = weights[TASK].value or 1.0
    return float(f"{of_task / scale.ratio:.2g}") if scale.ratio else 1.0


def _reweighted(recipe: Recipe, label: str, value: float) -> dict[str, Any]:
    entry = recipe.each_method[label].get("weight")
    weight = {**entry, "value": value} if isinstance(entry, Mapping) else value
    return {f"{key_of_method(label)}.weight": weight}
