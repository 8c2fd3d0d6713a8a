"""Object detection: the detector's own losses, average precision of COCO and VOC."""

from collections.abc import Sequence
from typing import ClassVar, Literal, final

import torch

from understudy.batch import Batch
from understudy.features import Features
from understudy.metrics import detection
from understudy.metrics.detection import Detections, Truth
from understudy.tasks._task import Evaluation, Outputs, Task

COCO = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
"""What is reported of COCO's metrics."""


@final
class Detection(Task):
    """Boxes and their classes.

    Students are ranked by AP50, the one number in LSHFM's tables; ND's quote AP.
    """

    truth: ClassVar[Literal["objects"]] = "objects"
    headline: ClassVar[str] = "AP50"

    def loss(self, student: Features, batch: Batch) -> None:
        """A detector computes its own."""

    def kept(self, features: Features, batch: Batch) -> Outputs:
        """Detections and objects, row by row, each with the number of its image.

        The labels of the images, a column for every class, tell of classes that never occur.
        """
        there = batch.objects
        assert there is not None  # the detector has seen them
        counts = torch.tensor([len(boxes) for boxes in there.boxes], device=batch.index.device)
        return features | {
            "index": batch.index,
            "labels": batch.labels,
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
        """AP, AP50, AP75, APs, APm, APl and AR100 of COCO and AP50 of VOC, all in percent.

        A metric that no object bears on is left out. Per class: AP50 of COCO. Fidelity:
        `agreement` and `overlap` of `detections.fidelity`.
        """
        found, truth = seen(student), there(student)
        classes = student["labels"].shape[1]
        coco = detection.coco(found, truth, classes)
        values = {name: coco.metrics[name] for name in COCO}
        areas = [x for x in detection.voc(found, truth, classes) if x is not None]
        values["voc_AP50"] = sum(areas) / len(areas) if areas else None
        known = {name: value for name, value in values.items() if value is not None}
        close = detection.fidelity(found, seen(teacher)) if teacher else None
        return Evaluation(known, coco.ap50, close)


def seen(outputs: Outputs) -> Detections:
    """The detections among some outputs."""
    return Detections(*(outputs[key] for key in ("image", "boxes", "classes", "scores")))


def there(outputs: Outputs) -> Truth:
    """The objects among some outputs."""
    keys = ("image", "boxes", "classes", "difficult", "crowd", "areas")
    return Truth(*(outputs[f"true_{key}"] for key in keys))
