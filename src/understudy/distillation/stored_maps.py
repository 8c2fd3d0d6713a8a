"""Maps of a teaching detector that were computed before, read where the student looks."""

from collections.abc import Collection, Sequence
from typing import cast, final

import torch
from torch import Tensor

from understudy.batch import Batch
from understudy.distillation.teacher import Teacher
from understudy.features import Features, Locations, Observation
from understudy.models.base import Wrapped
from understudy.models.detection import Detector, Maps


@torch.no_grad()
def maps_alone(teacher: Teacher, student: Wrapped, images: Sequence[Tensor]) -> Maps:
    """Return the teacher's maps of images that the student resizes and pads to one size.

    Args:
        teacher: The detector to learn from.
        student: Resizes the images.
        images: Values in [0, 1], without padding.
    """
    with teacher.evaluating() as network:
        detector = cast(Detector, network)
        return detector.maps(detector.resized_as(cast(Detector, student), images))


@torch.no_grad()
def padding(teacher: Teacher) -> Maps:
    """Return the vector of each of the teacher's maps where an image is padded."""
    with teacher.evaluating() as network:
        return cast(Detector, network).padding()


@final
class StoredMaps:
    """Maps of each image of a batch alone, in place of the teacher's forward pass.

    Args:
        teacher: Reads features from the maps.
        maps: Maps of each image, without the dimension of the batch.
        padding: Vector of each map where an image is padded to the size of the batch.
    """

    def __init__(self, teacher: Teacher, maps: Sequence[Maps], padding: Maps) -> None:
        self._teacher, self._maps, self._padding = teacher, maps, padding

    @torch.no_grad()
    def at(self, locations: Locations, reads: Collection[str]) -> Features:
        """Return features at the locations where a student was observed; see `Teacher.at`."""
        with self._teacher.evaluating() as network:
            return cast(Detector, network).at_maps(self._maps, self._padding, locations, reads)

    @torch.no_grad()
    def observe_for_prepare(self, batch: Batch, student: Wrapped) -> Observation:
        """Return features at the locations where the teacher itself would look."""
        with self._teacher.evaluating() as network:
            detector = cast(Detector, network)
            return detector.observe_maps(batch, student, self._maps, self._padding)
