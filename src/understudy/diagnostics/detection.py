"""Objects in some test images, as two detectors find them; how well each class is found."""

from typing import Any

import torch
from torch import Tensor

from understudy.data.loader import Loader
from understudy.diagnostics.curves import most_frequent, rounded
from understudy.diagnostics.thumbnails import chosen, scene
from understudy.metrics import detection
from understudy.metrics.detection import Detections, Truth
from understudy.tasks import Outputs
from understudy.tasks.detection import seen, there

LEAST = 0.3
"""Score from which a detection is kept."""
MOST = 40
"""Detections of one image that are kept, the most certain ones."""


def scenes(student: Outputs, teacher: Outputs | None, test: Loader) -> list[dict[str, Any]]:
    """Some images that hold objects, with what there is and what both networks find.

    A box is a list: left, top, right and bottom in pixels, class, and its score; of an object, 1 if
    it is to be found, and 0 if it is difficult or a crowd.
    """
    truth = there(student)
    return [
        scene(test, index)
        | {
            "truth": _objects(truth, index),
            "student": _found(seen(student), index),
            "teacher": _found(seen(teacher), index) if teacher else None,
        }
        for index in chosen(truth.image[truth.sought].tolist())
    ]


def precision(student: Outputs, teacher: Outputs | None) -> list[dict[str, Any]]:
    """Precision over recall of the classes with the most objects, matched as in VOC."""
    truth, classes = there(student), student["labels"].shape[1]
    counts = truth.classes[truth.sought].bincount(minlength=classes)
    sides = {
        name: detection.curves(seen(side), truth, classes)
        for name, side in (("student", student), ("teacher", teacher))
        if side
    }
    return [
        {"class": c, "count": int(counts[c])}
        | {name: rounded(curve.precision) for name, each in sides.items() if (curve := each[c])}
        for c in most_frequent(counts)
    ]


def _objects(truth: Truth, index: int) -> list[list[float]]:
    rows = truth.image == index
    return _rows(truth.boxes[rows], truth.classes[rows], truth.sought[rows])


def _found(found: Detections, index: int) -> list[list[float]]:
    shown = found[(found.image == index) & (found.scores >= LEAST)].ranked()
    return _rows(shown.boxes[:MOST], shown.classes[:MOST], shown.scores[:MOST])


def _rows(boxes: Tensor, classes: Tensor, values: Tensor) -> list[list[float]]:
    boxes, values = boxes.double().round(decimals=1), values.double().round(decimals=3)
    rows = torch.cat([boxes, classes[:, None].double(), values[:, None]], 1)
    found: list[list[float]] = rows.tolist()
    return found
