"""Score of each image by a network's outputs, and when one network's scores are far better."""

import time
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

from understudy.batch import labelled
from understudy.checks.examined import Examined, SplitName
from understudy.tasks import Outputs

_LEAST_GAIN = 0.05
"""Least mean gain that counts as far better."""

_ERRORS = 3.0
"""Standard errors by which a mean must differ from another one."""

_SHUFFLES = 16

_FEW = 16
"""Images by whose time more are chosen."""

_BUDGETS = {True: (3.0, 256), False: (10.0, 1024)}
"""Seconds for the outputs of a teacher, and most images, by whether the form is the short one."""

_SECONDS: WeakKeyDictionary[Examined, float] = WeakKeyDictionary()
"""Seconds in which the few were measured."""


def measured_split(examined: Examined) -> SplitName:
    """Return the split on which networks are measured: validation, else test, else training."""
    if examined.images.validation is not None:
        return "validation"
    return "test" if len(examined.images.test) else "train"


def affordable_images(examined: Examined, split: SplitName) -> int:
    """Return how many images of a split the teacher can be measured on in the time allowed."""
    seconds, most = _BUDGETS[examined.short]
    began = time.monotonic()
    examined.teacher_outputs(split, _FEW)
    if examined not in _SECONDS:  # the outputs are computed once
        _SECONDS[examined] = max(time.monotonic() - began, 1e-6)
    return int(min(max(_FEW * seconds / _SECONDS[examined], 2 * _FEW), most))


def labelled_outputs(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """Return logits and labels of the images that have a label."""
    rows = labelled(outputs["labels"])
    return outputs["logits"][rows].float(), outputs["labels"][rows]


def scores(
    logits: Float[Tensor, "images classes"], labels: Int[Tensor, "images ..."]
) -> Float[Tensor, " images"]:
    """Return for each image 1 if its class has the largest logit, else 0.

    With several classes in an image: the mean precision at its classes, ranked by the logits.
    """
    if labels.ndim == 1:
        return (logits.argmax(1) == labels).float()
    ranked = (labels == 1).gather(1, logits.argsort(1, descending=True)).float()
    ranks = torch.arange(1, ranked.shape[1] + 1, device=ranked.device)
    precision = ranked.cumsum(1) / ranks
    return (precision * ranked).sum(1) / ranked.sum(1).clamp_min(1)


def by_other_images(
    logits: Float[Tensor, "images classes"], labels: Int[Tensor, "images ..."]
) -> Float[Tensor, " images"]:
    """Return the mean score of each image by outputs for other images, drawn at random."""
    draw = torch.Generator().manual_seed(0)
    shuffles = [torch.randperm(len(logits), generator=draw) for _ in range(_SHUFFLES)]
    return torch.stack([scores(logits[rows], labels) for rows in shuffles]).mean(0)


def far_better(new: Float[Tensor, " images"], old: Float[Tensor, " images"]) -> bool:
    """Return True if scores are higher by five points, and by more than chance explains."""
    return _differs(new - old, least=_LEAST_GAIN)


def above(values: Float[Tensor, " images"], others: Float[Tensor, " images"]) -> bool:
    """Return True if scores are higher by more than chance explains."""
    return _differs(values - others, least=0.0)


def _differs(difference: Tensor, *, least: float) -> bool:
    count = len(difference)
    if count < 2:
        return False
    # Of few images, all of which agree, the deviation would be 0.
    error = (difference.var() / count + 0.25 / count**2).sqrt()
    return float(difference.mean()) > max(least, _ERRORS * float(error))
