"""Object detection: the detector's own losses, average precision of COCO."""

from collections.abc import Sequence
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from understudy.batch import Batch
from understudy.features import Features
from understudy.tasks._task import Evaluation, Outputs, Task


@final
class Detection(Task):
    """Boxes and their classes."""

    truth: ClassVar[Literal["objects"]] = "objects"
    headline: ClassVar[str] = "AP50"

    def loss(self, student: Features, batch: Batch) -> None:
        """A detector computes its own."""

    def kept(self, features: Features, batch: Batch) -> Outputs:
        """Detections and objects, row by row, each with the number of its image."""
        there = batch.objects
        assert there is not None  # the detector has seen them
        counts = torch.tensor([len(boxes) for boxes in there.boxes], device=batch.index.device)
        return features | {
            "index": batch.index,
            "true_image": batch.index.repeat_interleave(counts),
            "true_boxes": torch.cat(there.boxes),
            "true_classes": torch.cat(there.labels),
            "true_difficult": torch.cat(there.difficult),
            "true_crowd": torch.cat(there.crowd),
            "true_areas": torch.cat(there.areas),
        }

    def joined(self, parts: Sequence[Outputs]) -> Outputs:
        """All rows; each names its image."""
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def evaluate(self, student: Outputs, teacher: Outputs | None) -> Evaluation:
        """To come."""
        found: Tensor = student["scores"]
        return Evaluation({"AP50": float(len(found))}, [], {} if teacher else None)
