"""One live teacher for several students that are trained on the same batches."""

from typing import final

import torch
from torch import Tensor

from understudy.batch import Batch
from understudy.distillation.distiller import Teacher
from understudy.features import Features


@final
class Shared:
    """Runs a teacher once on a batch, however many distillers ask for its features.

    Set it as the `replay` of every distiller that gets the same images in turn:

        shared = Shared(first.teacher)
        first.replay = second.replay = shared

    Args:
        teacher: The teacher of any of the distillers.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self._images: Tensor | None = None
        self._version = 0
        self._features: Features = {}

    def __call__(self, batch: Batch) -> Features:
        """Return the teacher's features; those of the last batch again, if its images are equal."""
        if not self._equal_last(batch.images):
            self._features = self.teacher(batch)
            # Kept alive, so that no other tensor takes its place in memory and its identity.
            self._images, self._version = batch.images, batch.images._version
        return self._features

    def _equal_last(self, images: Tensor) -> bool:
        last = self._images
        # A tensor that was written into since then says so by its version.
        if last is None or last._version != self._version:
            return False
        if last is images:
            return True
        # Image and view numbers cannot be compared instead: a loader of one's own gives none.
        alike = (last.shape, last.dtype, last.device) == (images.shape, images.dtype, images.device)
        return alike and torch.equal(last, images)
