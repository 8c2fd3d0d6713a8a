"""Repeat a pass that does not fit into memory in smaller parts, where parts do not change it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, final

from understudy.batch import Batch
from understudy.errors import OutOfMemory, memory_ran_out

LOGGER = logging.getLogger("understudy")

_T = TypeVar("_T")


@final
class MemoryParts:
    """Runs passes in evaluation mode over batches, in parts of as many images as memory holds.

    Args:
        purpose: What the passes are for, in messages.
    """

    def __init__(self, purpose: str) -> None:
        self.purpose = purpose
        self._most: int | None = None

    def __call__(self, batch: Batch, run: Callable[[Batch], _T]) -> Iterator[_T]:
        """Yield the result of every part of a batch, in the order of the images.

        Raises:
            OutOfMemory: Not even one image fits.
        """
        start = 0
        while start < len(batch):
            size = min(self._most or len(batch), len(batch) - start)
            part = batch if size == len(batch) else batch[start : start + size]
            try:
                result = run(part)
            except (RuntimeError, MemoryError) as error:
                if not memory_ran_out(error):
                    raise
                self._halve(size)
                continue
            yield result
            start += size

    def _halve(self, size: int) -> None:
        if size == 1:
            raise OutOfMemory(
                f"Not even one image fits into memory for {self.purpose}: use smaller images "
                "(data.size), training.precision bf16, or a smaller network."
            )
        self._most = size // 2
        LOGGER.warning(
            f"Memory ran out while {self.purpose} with {size} images at a time; it goes on with "
            f"{self._most}."
        )


@contextmanager
def enough_memory(label: str) -> Iterator[None]:
    """Say which method does not fit into memory, where it is built.

    Raises:
        OutOfMemory: It does not.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not memory_ran_out(error):
            raise
        raise OutOfMemory(
            f"The method '{label}' does not fit into memory: lower the hyper-parameters that are "
            f"numbers of things, see `understudy show {label}`."
        ) from error
