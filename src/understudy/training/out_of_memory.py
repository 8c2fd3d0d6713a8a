"""A step that does not fit into memory is undone, and done again in smaller parts."""

from collections.abc import Sequence
from typing import final

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from understudy.batch import Batch
from understudy.errors import OutOfMemory

_COMPLAINTS = (
    *("out of memory", "not enough memory", "can't allocate memory", "bad_alloc"),
    "could not create a primitive",  # all that oneDNN says when it finds no memory
)


@final
class Splitting:
    """In how many parts each micro-batch is worked on, and what a failed step has to undo.

    Args:
        trainable: What is trained. Its batch normalisations count images in every forward pass,
            and need two of them to do so.
    """

    def __init__(self, trainable: nn.Module) -> None:
        norms = [module for module in trainable.modules() if isinstance(module, _BatchNorm)]
        self.factor = 1
        self._least = 2 if norms else 1
        self._statistics = [buffer for norm in norms for buffer in norm.buffers()]
        self._before = [buffer.clone() for buffer in self._statistics]

    def remember(self) -> None:
        """Note the statistics as they are before a step."""
        if self._statistics:
            torch._foreach_copy_(self._before, self._statistics)

    def undo(self) -> None:
        """Put the statistics back."""
        if self._statistics:
            torch._foreach_copy_(self._statistics, self._before)

    def of(self, batches: Sequence[Batch]) -> list[Batch]:
        """The parts of some micro-batches; a part has an image, or two to normalise over."""
        return [part for batch in batches for part in _split(batch, self._parts(batch))]

    def double(self, batches: Sequence[Batch]) -> str:
        """Use twice as many parts from now on, and say so.

        Raises:
            OutOfMemory: The micro-batches cannot be split any further.
        """
        before = self.of(batches)
        self.factor *= 2
        after = self.of(batches)
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


def ran_out(error: Exception) -> bool:
    """Whether an error says that memory ran out, on a GPU or a CPU."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or any(words in str(error) for words in _COMPLAINTS)


def _split(batch: Batch, parts: int) -> list[Batch]:
    if parts == 1:
        return [batch]
    rows = torch.arange(len(batch)).tensor_split(parts)
    return [batch[int(part[0]) : int(part[-1]) + 1] for part in rows]  # views, not copies
