"""Features of both networks for a sample of the test images, where no outputs are stored."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from accelerate import Accelerator
from jaxtyping import Int
from torch import Tensor

from understudy.batch import Batch
from understudy.data.loader import Loader
from understudy.data.views import CLEAN
from understudy.distillation.distiller import Teacher
from understudy.distillation.memory_parts import MemoryParts
from understudy.features import Features
from understudy.models.network import Network


@final
@dataclass(frozen=True)
class FeaturePairs:
    """Student and teacher in evaluation mode, and the test images."""

    student: Network
    teacher: Teacher
    test: Loader
    accelerator: Accelerator

    def sample(self, count: int) -> Iterator[tuple[Features, Features, Batch]]:
        """Yield features of student and teacher, and their batch, for evenly spaced images."""
        in_parts = MemoryParts("computing the report's charts")
        index = spread(len(self.test.labels), count)
        parts = torch.split(index, self.test.batch)
        views = [torch.full_like(part, CLEAN) for part in parts]
        numbers = map(self.test.views.number, parts, views)
        passes = self.test.show(list(zip(parts, numbers, strict=True)))
        for part, view, images in zip(parts, views, passes, strict=True):
            batch = Batch(images, self.test.labels[part], part, view)
            yield from in_parts(
                batch.to(self.accelerator.device, torch.contiguous_format), self._features
            )

    def _features(self, batch: Batch) -> tuple[Features, Features, Batch]:
        with self.accelerator.autocast():
            student = self.student.features(batch.images)
            teacher = self.teacher(batch)
        return _full(student), _full(teacher), batch


def spread(total: int, count: int) -> Int[Tensor, " count"]:
    """Return evenly spaced numbers below `total`, with the first and the last."""
    return torch.linspace(0, total - 1, min(total, count)).round().long()


def _full(features: Features) -> Features:
    return {name: x.float() for name, x in features.items()}
