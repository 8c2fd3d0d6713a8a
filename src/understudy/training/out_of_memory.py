"""Repeat a step that does not fit into memory in smaller parts."""

from collections.abc import Sequence
from typing import final

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from understudy.batch import Batch
from understudy.errors import OutOfMemory


@final
class StepSplitter:
    """Splits micro-batches into parts, and undoes the statistics of a failed step.

    Args:
        trainable: Module in training. Its batch normalisations update their statistics in every
            forward pass, for which they need two images.

    Attributes:
        factor: Parts of each micro-batch; 1 until memory runs out.
    """

    def __init__(self, trainable: nn.Module) -> None:
        norms = [module for module in trainable.modules() if isinstance(module, _BatchNorm)]
        self.factor = 1
        self._least = 2 if norms else 1
        self._statistics = [buffer for norm in norms for buffer in norm.buffers()]
        self._before = [buffer.clone() for buffer in self._statistics]

    def save_statistics(self) -> None:
        """Copy the statistics of batch normalisation before a step."""
        # One call for all: there are many, and all are small.
        if self._statistics:
            torch._foreach_copy_(self._before, self._statistics)

    def restore_statistics(self) -> None:
        """Undo the changes to the statistics since `save_statistics`."""
        if self._statistics:
            torch._foreach_copy_(self._statistics, self._before)

    def split(self, batches: Sequence[Batch]) -> list[Batch]:
        """Return the parts of micro-batches; each has an image, or two with batch normalisation."""
        return [part for batch in batches for part in _split(batch, self._parts(batch))]

    def double(self, batches: Sequence[Batch]) -> str:
        """Use twice as many parts from now on.

        Returns:
            A message that says so.

        Raises:
            OutOfMemory: The micro-batches cannot be split any further.
        """
        before = self.split(batches)
        self.factor *= 2
        after = self.split(batches)
        if len(after) == len(before):
            raise OutOfMemory(
                f"A step does not fit into memory, not even {max(map(len, before))} images at a "
                "time: use smaller images (data.size), training.precision bf16, or smaller "
                "networks."
            )
        normalised = ", each normalised by itself" if self._statistics else ""
        return (
            f"Memory ran out at {max(map(len, before))} images at a time: from now on a step has "
            f"{len(after)} parts{normalised}. With training.accumulate {len(after)} it has them "
            "from the start."
        )

    def _parts(self, batch: Batch) -> int:
        return max(1, min(self.factor, len(batch) // self._least))


def _split(batch: Batch, parts: int) -> list[Batch]:
    if parts == 1:
        return [batch]
    rows = torch.arange(len(batch)).tensor_split(parts)
    return [batch[int(part[0]) : int(part[-1]) + 1] for part in rows]  # views, not copies
