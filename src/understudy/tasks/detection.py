"""Object detection: the detector's own losses, and average precision of COCO and VOC."""

from collections.abc import Sequence
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from understudy.batch import Batch
from understudy.features import Features
from understudy.metrics import detection
from understudy.metrics.detection import Detections, GroundTruth
from understudy.tasks._task import Evaluation, Outcomes, Outputs, Task

COCO = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
"""COCO's metrics that are reported."""


@final
class Detection(Task):
    """Boxes and their classes.

    Students are ranked by AP50, the one number in LSHFM's tables; ND's quote AP.
    """

    truth: ClassVar[Literal["objects"]] = "objects"
    headline: ClassVar[str] = "AP50"

    def loss(self, student: Features, batch: Batch, class_weights: Tensor | None = None) -> None:
        """Return None: a detector computes its own losses."""

    def collect(self, features: Features, batch: Batch) -> Outputs:
        """Select detections and objects, one row each, with the numbers of their images."""
        objects = batch.objects
        assert objects is not None  # the detector has read them
        counts = torch.tensor([len(boxes) for boxes in objects.boxes], device=batch.index.device)
        return features | {
            "index": batch.index,
            # One column per class: the number of classes is known even if some never occur.
            "labels": batch.labels,
            "true_image": batch.index.repeat_interleave(counts),
            "true_boxes": torch.cat(objects.boxes),
            "true_classes": torch.cat(objects.labels),
            "true_difficult": torch.cat(objects.difficult),
            "true_crowd": torch.cat(objects.crowd),
            "true_areas": torch.cat(objects.areas),
        }

    def concatenate(self, batches: Sequence[Outputs]) -> Outputs:
        """Concatenate the rows of all batches, unsorted, as each row holds its image's number."""
        return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}

    def measure(self, outputs: Outputs, *, finished: bool = False) -> Evaluation:
        """Compute AP, AP50, AP75, APs, APm, APl, AR100 of COCO and AP50 of VOC, in percent.

        Metrics without any object to detect are left out. Per class: AP50 of COCO.
        """
        detections, truth = detections_in(outputs), ground_truth_in(outputs)
        classes = outputs["labels"].shape[1]
        coco = detection.coco(detections, truth, classes)
        values = {name: coco.metrics[name] for name in COCO}
        aps = [x for x in detection.voc(detections, truth, classes) if x is not None]
        values["voc_AP50"] = sum(aps) / len(aps) if aps else None
        metrics = {name: value for name, value in values.items() if value is not None}
        return Evaluation(metrics, coco.ap50, None)

    def fidelity(
        self, student: Outputs, teacher: Outputs, *, finished: bool = False
    ) -> dict[str, float | None]:
        """Compute `agreement` and `overlap` of `metrics.detection.fidelity`."""
        return detection.fidelity(detections_in(student), detections_in(teacher))

    def outcomes(self, student: Outputs, teacher: Outputs | None = None) -> Outcomes | None:
        """Return VOC's mean AP50 on resampled test sets; None without objects.

        COCO's AP50, the headline, differs from VOC's by how the recall is sampled, which changes
        with the choice of images by nearly the same amount.
        """
        images = student["index"].cpu()
        resampled = detection.resampled_ap(
            detections_in(student), ground_truth_in(student), student["labels"].shape[1], images
        )
        return Outcomes(self.headline, len(images), resampled=resampled) if resampled else None


def detections_in(outputs: Outputs) -> Detections:
    """Return the detections in the outputs of a detector."""
    return Detections(*(outputs[key] for key in ("image", "boxes", "classes", "scores")))


def ground_truth_in(outputs: Outputs) -> GroundTruth:
    """Return the annotated objects in the outputs of a detector."""
    keys = ("image", "boxes", "classes", "difficult", "crowd", "areas")
    return GroundTruth(*(outputs[f"true_{key}"] for key in keys))
