"""The teacher's features of the training images, which methods measure before training."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.batch import Batch
from understudy.distillation.memory_parts import MemoryParts
from understudy.distillation.stored_maps import StoredMaps
from understudy.distillation.teacher import Teacher
from understudy.errors import DataError
from understudy.features import Features, TeacherOutputs, by_group
from understudy.models.base import Wrapped

_Optional = TypeVar("_Optional", Tensor, Tensor | None)


class TrainingOutputs(TeacherOutputs):
    """Outputs of a distiller's teacher for the training images.

    Args:
        observe: Gives the teacher's features of a batch, or the teacher to read at locations.
        teacher: The teacher.
        student: The student, as which a detector resizes images.
        batches: Given whether images are augmented, yields every training image once.
        num_images: Images of one pass; None counts them when they are asked for.
    """

    def __init__(
        self,
        observe: Callable[[Batch], Features | Teacher | StoredMaps],
        teacher: Teacher,
        student: Wrapped,
        batches: Callable[[bool], Iterator[Batch]],
        num_images: int | None,
    ) -> None:
        self._observe, self._teacher, self._student = observe, teacher, student
        self._batches, self._num_images = batches, num_images
        self._parts = MemoryParts("measuring the teacher")
        self.dtype: torch.dtype | None = None
        """Data type of the method that measures; float64 is converted to it or from it."""

    @property
    def classifier_weight(self) -> Float[Tensor, "classes dim"] | None:
        """Weight of the teacher's last linear layer."""
        return self.converted(self._teacher.network.classifier_weight)

    @property
    def classifier_bias(self) -> Float[Tensor, " classes"] | None:
        """Bias of the teacher's last linear layer."""
        return self.converted(self._teacher.network.classifier_bias)

    @property
    def num_images(self) -> int:
        """Number of images in one pass."""
        if self._num_images is None:
            self._num_images = sum(map(len, self._batches(False)))
        return self._num_images

    def batches(self, *, augmented: bool) -> Iterator[tuple[Features, Batch]]:
        """Iterate over the training images, in parts that fit into memory."""
        device, images = self._teacher.network.device, 0
        for batch in self._batches(augmented):
            images += len(batch)
            yield from self._parts(batch.to(device, torch.contiguous_format), self._features)
        if not images:
            raise DataError(
                "There are no images to measure the teacher on: `prepare` needs a loader of the "
                "training images."
            )

    def _features(self, batch: Batch) -> tuple[Features, Batch]:
        # By the distiller: with a bank, the features that are measured are stored for training.
        teacher = self._observe(batch)
        if isinstance(teacher, Teacher | StoredMaps):
            observation = teacher.observe_for_prepare(batch, self._student)
            teacher, batch = observation.features, observation.batch
        return {name: self.converted(x) for name, x in teacher.items()}, batch

    def converted(self, x: _Optional) -> _Optional:
        """Return a tensor as float64 if the method is, and float64 as what the method is."""
        if x is None or self.dtype is None or not x.is_floating_point():
            return x
        return x.to(self.dtype) if torch.float64 in (x.dtype, self.dtype) else x

    def group(self, name: str) -> "_GroupOutputs":
        """Return the outputs of one group of locations."""
        return _GroupOutputs(self, self._teacher.network, name)


class _GroupOutputs(TeacherOutputs):
    """Outputs of a teaching detector for one group of locations."""

    def __init__(self, whole: TrainingOutputs, network: Wrapped, group: str) -> None:
        self._whole, self._group = whole, group
        self._groups, self._classifier = tuple(network.shapes.groups), network.group(group)

    @property
    def classifier_weight(self) -> Float[Tensor, "scores dim"]:
        return self._whole.converted(self._classifier.classifier_weight)

    @property
    def classifier_bias(self) -> Float[Tensor, " scores"] | None:
        return self._whole.converted(self._classifier.classifier_bias)

    @property
    def num_images(self) -> int:
        return self._whole.num_images

    def batches(self, *, augmented: bool) -> Iterator[tuple[Features, Batch]]:
        for features, batch in self._whole.batches(augmented=augmented):
            yield by_group(features, batch, self._groups)[self._group]

    def group(self, name: str) -> "_GroupOutputs":
        return self._whole.group(name)
