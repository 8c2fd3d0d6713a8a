"""Loss and gradient of every term of a distiller before training, measured on a copy of it."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.distillation.distillation import TeacherOutput
from understudy.distillation.distiller import Distiller, Trainable
from understudy.distillation.weights import weight_of
from understudy.errors import DataError
from understudy.functional import seeded

TASK = "task"
"""Label of the loss on labels; the losses `task/…` of a detector count as one."""

_FP16_SCALE = 4096.0
"""Factor of a loss in fp16, below whose range small gradients would be 0."""


@dataclass(frozen=True)
class LossScale:
    """Size of one loss and of its gradient, both unweighted: means over some batches.

    Attributes:
        loss: Value of the loss.
        gradient_norm: Euclidean norm of its gradient on the shared parameters: those of the student
            that the loss on labels reaches as well. Without a loss on labels, on all of the
            student's parameters that it reaches.
        ratio: This norm, divided by that of the loss on labels on the same parameters; None
            without a loss on labels, or where its gradient is 0.
    """

    loss: float
    gradient_norm: float
    ratio: float | None


def loss_scales(
    distiller: Distiller,
    batches: Iterable[Batch],
    *,
    precision: torch.dtype | None = None,
    seed: int = 0,
) -> dict[str, LossScale]:
    """Measure loss and gradient of every term as they are before the next step of training.

    Nothing of the distiller changes: student and methods are copied, so that neither statistics of
    batch normalisation nor what a method stores for each image moves; random numbers are drawn from
    a seed, after which every generator continues where it was. Features are those of the live
    teacher: no bank is read or filled.

    Args:
        distiller: Prepared student, teacher and methods, on their device.
        batches: Training batches, the more the less noise; each is copied to that device.
        precision: Data type of the autocast under which the student runs; None without autocast.
        seed: Seed of dropout, and of what methods draw in a step.

    Returns:
        Label → scale, `task` first; the labels are those of the distiller's weights.

    Raises:
        DataError: There are no batches.
        UnderstudyError: A method must measure the teacher first, or cannot read a batch.
    """
    device = distiller.student.device
    trainable = deepcopy(distiller.trainable).train()
    with seeded(seed, device):
        measured = [
            _measure(trainable, batch, distiller.observe_live(batch), precision)
            for batch in (each.to(device, torch.preserve_format) for each in batches)
        ]
    if not measured:
        raise DataError("There are no batches to measure losses on: give at least one.")
    return {label: _mean([each[label] for each in measured]) for label in measured[0]}


def _measure(
    trainable: Trainable, batch: Batch, teacher: TeacherOutput, precision: torch.dtype | None
) -> dict[str, LossScale]:
    """Return the scale of every term on one batch."""
    with torch.autocast(batch.images.device.type, precision) if precision else nullcontext():
        losses = trainable(batch, teacher)
    assert isinstance(losses, dict)
    terms = _by_label(losses)
    parameters = [p for p in trainable.student.parameters() if p.requires_grad]
    scale = _FP16_SCALE if precision is torch.float16 else 1.0
    gradients = {label: _gradient(loss, parameters, scale) for label, loss in terms.items()}
    of_task = gradients.get(TASK)
    return {
        label: _scale(float(terms[label].detach()), gradient, of_task)
        for label, gradient in gradients.items()
    }


def _by_label(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sum the losses `task/…` to one."""
    terms: dict[str, Tensor] = {}
    for name, loss in losses.items():
        label = weight_of(name)
        terms[label] = terms[label] + loss if label in terms else loss
    return terms


def _gradient(
    loss: Tensor, parameters: Sequence[nn.Parameter], scale: float
) -> list[Tensor | None]:
    """Return the gradient on each parameter; None on those that the loss does not reach."""
    if not loss.requires_grad:
        return [None] * len(parameters)
    gradients = torch.autograd.grad(loss * scale, parameters, retain_graph=True, allow_unused=True)
    return [None if g is None else g.float() / scale for g in gradients]


def _scale(
    loss: float, gradient: Sequence[Tensor | None], of_task: Sequence[Tensor | None] | None
) -> LossScale:
    if of_task is None:
        return LossScale(loss, _norm(gradient), None)
    pairs = list(zip(gradient, of_task, strict=True))
    norm = _norm([g for g, t in pairs if t is not None])
    task_norm = _norm([t for g, t in pairs if g is not None])
    return LossScale(loss, norm, norm / task_norm if task_norm else None)


def _norm(gradients: Sequence[Tensor | None]) -> float:
    norms = [g.norm() for g in gradients if g is not None]
    return float(torch.stack(norms).norm()) if norms else 0.0


def _mean(scales: Sequence[LossScale]) -> LossScale:
    ratios = [each.ratio for each in scales if each.ratio is not None]
    return LossScale(
        loss=fmean(each.loss for each in scales),
        gradient_norm=fmean(each.gradient_norm for each in scales),
        ratio=fmean(ratios) if ratios else None,
    )
