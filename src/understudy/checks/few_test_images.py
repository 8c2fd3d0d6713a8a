"""Whether the test images are enough to tell a method from the control."""

from collections.abc import Iterator

from understudy.checks._teacher_judgement import judgement
from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.data import Source
from understudy.experiment.evidence import few_images, few_labels

# After `teacher_accuracy`, which measures what this check reads.
SHORT, OF_METHODS, SECONDS = True, False, 2.6

_UNKNOWN = 50.0
"""Accuracy in percent that is assumed where the teacher's is not known: the most uncertain one."""

_COUNTED = 20_000
"""Images up to which objects are counted; more have enough of them."""


def check(examined: Examined) -> Iterator[Finding]:
    """Compare the standard error of the headline metric with the usual gain of a method.

    A comparison is warned, since it tells arms apart; of a single run it is a note.
    """
    test, split = examined.images.test, examined.images.measured
    truth = examined.task.truth
    if not examined.task.uses_labels or not len(test):
        return
    if truth == "class":
        sentence = few_images(_accuracy(examined), int(test.labelled.sum()), split=split)
    else:
        noun = "objects" if truth == "objects" else "labels"
        sentence = few_labels(_count(test, noun), noun, len(test), split=split)
    if not sentence:
        return
    yield Finding(
        "few_test_images",
        "warning" if examined.plan else "note",
        sentence,
        advice=f"Add images to the {split} split, or expect that only larger gains are shown.",
    )


def _accuracy(examined: Examined) -> float:
    """Return the best teacher's own accuracy in percent, if it is known and above chance."""
    names = examined.recipe.each_teacher
    judged = [judgement(examined.alone(name) if name else examined) for name in names]
    known = [one.value for one in judged if one is not None and not one.at_chance]
    return max(known, default=_UNKNOWN)


def _count(test: Source, noun: str) -> int:
    if noun == "labels" or len(test) > _COUNTED:
        return int((test.labels == 1).sum())
    return sum(len(test.target(i)["boxes"]) for i in range(len(test)))
