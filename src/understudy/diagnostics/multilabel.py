"""Predicted classes of sample images, and precision over recall of each class."""

from typing import Any

from torch import Tensor

from understudy.data.loader import Loader
from understudy.diagnostics.curves import STEPS, most_frequent, rounded
from understudy.diagnostics.thumbnails import sample, sample_indices
from understudy.metrics import classification
from understudy.tasks import Outputs

MIN_PROBABILITY = 0.3
"""Minimum probability of a stored class that the image does not show."""


def scenes(student: Outputs, teacher: Outputs | None, test: Loader) -> list[dict[str, Any]]:
    """Return sample images that show a class, their classes, and both networks' probabilities.

    The probabilities of classes that are present are stored whatever they are.
    """
    present = student["labels"] == 1
    rows = {int(index): row for row, index in enumerate(student["index"])}
    return [
        sample(test, index)
        | {
            "truth": present[rows[index]].nonzero().flatten().tolist(),
            "student": _probabilities(student, rows[index]),
            "teacher": _probabilities(teacher, rows[index]) if teacher else None,
        }
        for index in sample_indices(student["index"][present.any(1)].tolist())
    ]


def precision(student: Outputs, teacher: Outputs | None) -> list[dict[str, Any]]:
    """Return precision over recall of the classes that most images show."""
    counts = (student["labels"] == 1).sum(0)
    sides = {"student": student} | ({"teacher": teacher} if teacher else {})
    return [
        {"class": c, "count": int(counts[c])}
        | {
            name: _curve(side["logits"][:, c], student["labels"][:, c])
            for name, side in sides.items()
        }
        for c in most_frequent(counts)
    ]


def _curve(scores: Tensor, labels: Tensor) -> list[float]:
    """Return the highest precision at each recall or above, over images with a known label."""
    known = labels >= 0
    present = labels[known] == 1
    ranked = present[scores[known].argsort(descending=True, stable=True)]
    hits = ranked.cumsum(0)
    at_rank = hits.double() / ranked.new_ones(len(ranked)).cumsum(0)
    return rounded(
        classification.at_recalls(hits, at_rank, int(present.sum()), steps=STEPS).tolist()
    )


def _probabilities(outputs: Outputs, row: int) -> list[list[float]]:
    """Return pairs of class and probability, the highest probability first."""
    probabilities = outputs["logits"][row].double().sigmoid()
    stored = (probabilities >= MIN_PROBABILITY) | (outputs["labels"][row] == 1)
    pairs = [[c, round(float(probabilities[c]), 3)] for c in stored.nonzero().flatten().tolist()]
    return sorted(pairs, key=lambda pair: -pair[1])
