"""How often each class is taken for each other, by the student on the test images."""

import torch

from understudy.batch import UNLABELLED
from understudy.tasks import Outputs

CLASSES = 100
"""Most classes of which the whole table is stored."""


def confusion(student: Outputs) -> list[list[int]]:
    """Return the number of test images of each class (row) with each predicted class (column).

    Empty without labels or logits, or with more than `CLASSES` classes.
    """
    labelled = student["labels"] != UNLABELLED
    if "logits" not in student or not labelled.any() or student["logits"].shape[1] > CLASSES:
        return []
    labels, logits = student["labels"][labelled], student["logits"][labelled]
    classes = logits.shape[1]
    counts = (labels * classes + logits.argmax(1)).bincount(minlength=classes**2)
    table: list[list[int]] = counts[: classes**2].view(classes, classes).to(torch.int64).tolist()
    return table
