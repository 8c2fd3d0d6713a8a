"""Detections on sample images, and precision over recall of each class."""

from typing import Any

import torch
from torch import Tensor

from understudy.data.loader import Loader
from understudy.diagnostics.curves import most_frequent, rounded
from understudy.diagnostics.thumbnails import sample, sample_indices
from understudy.metrics import detection
from understudy.metrics.detection import Detections, GroundTruth
from understudy.tasks import Outputs
from understudy.tasks.detection import detections_in, ground_truth_in

MIN_SCORE = 0.3
"""Minimum score of a stored detection."""
MAX_BOXES = 40
"""Maximum number of stored detections per image, those with the highest scores."""


def scenes(student: Outputs, teacher: Outputs | None, test: Loader) -> list[dict[str, Any]]:
    """Return sample images with objects, their boxes, and the boxes that both networks predict.

    A box is a list: left, top, right and bottom in pixels, class, and score. The score of an object
    is 1, or 0 if it is difficult or a crowd, and thus not to be found.
    """
    truth = ground_truth_in(student)
    return [
        sample(test, index)
        | {
            "truth": _objects(truth, index),
            "student": _detections(detections_in(student), index),
            "teacher": _detections(detections_in(teacher), index) if teacher else None,
        }
        for index in sample_indices(truth.image[truth.required].tolist())
    ]


def precision(student: Outputs, teacher: Outputs | None) -> list[dict[str, Any]]:
    """Return precision over recall of the classes with the most objects, matched as in VOC."""
    truth, classes = ground_truth_in(student), student["labels"].shape[1]
    counts = truth.classes[truth.required].bincount(minlength=classes)
    sides = {
        name: detection.curves(detections_in(side), truth, classes)
        for name, side in (("student", student), ("teacher", teacher))
        if side
    }
    return [
        {"class": c, "count": int(counts[c])}
        | {name: rounded(curve.precision) for name, each in sides.items() if (curve := each[c])}
        for c in most_frequent(counts)
    ]


def _objects(truth: GroundTruth, index: int) -> list[list[float]]:
    rows = truth.image == index
    return _rows(truth.boxes[rows], truth.classes[rows], truth.required[rows])


def _detections(detections: Detections, index: int) -> list[list[float]]:
    rows = (detections.image == index) & (detections.scores >= MIN_SCORE)
    best = detections[rows].ranked()
    return _rows(best.boxes[:MAX_BOXES], best.classes[:MAX_BOXES], best.scores[:MAX_BOXES])


def _rows(boxes: Tensor, classes: Tensor, values: Tensor) -> list[list[float]]:
    boxes, values = boxes.double().round(decimals=1), values.double().round(decimals=3)
    rows = torch.cat([boxes, classes[:, None].double(), values[:, None]], 1)
    listed: list[list[float]] = rows.tolist()
    return listed
