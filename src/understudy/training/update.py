"""The end of every optimizer step: clip gradients, update weights and their moving average."""

import logging
from typing import final

from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from understudy.config.recipe import Training
from understudy.distillation.distiller import Trainable

LOGGER = logging.getLogger("understudy")

CLIP = 10.0
"""Largest gradient norm where a loss is unbounded: by hashes alone, a detector ended in NaN."""


@final
class Update:
    """Ends an optimizer step, launched one by one or captured as a CUDA graph.

    Args:
        trainable: Module whose gradients are clipped.
        optimizer: Steps its parameters; that of Accelerate where gradients are scaled (fp16).
        clip: Largest norm of the gradient; None for no clipping.
        accelerator: Undoes the scale of gradients before they are clipped.
        student: Network that is averaged.
        average: Moving average of the student; None without one.
    """

    def __init__(
        self,
        trainable: Trainable,
        optimizer: Optimizer | AcceleratedOptimizer,
        *,
        clip: float | None,
        accelerator: Accelerator,
        student: nn.Module,
        average: AveragedModel | None,
    ) -> None:
        self._trainable, self._optimizer = trainable, optimizer
        self._clip, self._accelerator = clip, accelerator
        self._student, self._average = student, average

    def __call__(self) -> None:
        """Change the weights by the gradients of the step, and set the gradients to None."""
        if self._clip is not None:
            # By Accelerate: with fp16, gradients lose their scale before their norm is measured.
            self._accelerator.clip_grad_norm_(self._trainable.parameters(), self._clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._average:
            self._average.update_parameters(self._student)


def clip_norm(training: Training, trainable: Trainable, *, log: bool) -> float | None:
    """Return the largest gradient norm: the recipe's, or `CLIP` where a loss is unbounded.

    Args:
        training: May set `clip`.
        trainable: Module to be trained.
        log: Log a warning where `CLIP` is used although the recipe does not ask for it.
    """
    if training.clip is not None or not trainable.unbounded_loss:
        return training.clip
    if log:
        LOGGER.warning(f"Clipping gradients to norm {CLIP:g}: the hash loss alone is unbounded.")
    return CLIP
