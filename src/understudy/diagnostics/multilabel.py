"""Classes in some test images, as two networks see them; how well each class is told."""

from typing import Any

from torch import Tensor

from understudy.data.loader import Loader
from understudy.diagnostics.curves import STEPS, most_frequent, rounded
from understudy.diagnostics.thumbnails import chosen, scene
from understudy.metrics import classification
from understudy.tasks import Outputs

LEAST = 0.3
"""Probability from which a class is kept that an image does not show."""


def scenes(student: Outputs, teacher: Outputs | None, test: Loader) -> list[dict[str, Any]]:
    """Some images that show a class, with their classes and the probabilities of both networks.

    The classes present are kept with the probability that they are given, whatever it is.
    """
    present = student["labels"] == 1
    rows = {int(index): row for row, index in enumerate(student["index"])}
    return [
        scene(test, index)
        | {
            "truth": present[rows[index]].nonzero().flatten().tolist(),
            "student": _told(student, rows[index]),
            "teacher": _told(teacher, rows[index]) if teacher else None,
        }
        for index in chosen(student["index"][present.any(1)].tolist())
    ]


def precision(student: Outputs, teacher: Outputs | None) -> list[dict[str, Any]]:
    """Precision over recall of the classes that the most images show."""
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
    """The best precision at every recall; an image of which nothing is known is left out."""
    known = labels >= 0
    present = labels[known] == 1
    ranked = present[scores[known].argsort(descending=True, stable=True)]
    hits = ranked.cumsum(0)
    at_rank = hits.double() / ranked.new_ones(len(ranked)).cumsum(0)
    return rounded(
        classification.at_recalls(hits, at_rank, int(present.sum()), steps=STEPS).tolist()
    )


def _told(outputs: Outputs, row: int) -> list[list[float]]:
    """Class and probability, the surest first."""
    probabilities = outputs["logits"][row].double().sigmoid()
    kept = (probabilities >= LEAST) | (outputs["labels"][row] == 1)
    told = [[c, round(float(probabilities[c]), 3)] for c in kept.nonzero().flatten().tolist()]
    return sorted(told, key=lambda pair: -pair[1])
