"""What test images and training steps can show: chance, standard errors, runs that are too short.

Sentences that the doctor says before training and a report afterwards. Loads no torch.
"""

import math
from collections.abc import Sequence

USUAL_GAIN = 1.0
"""Points by which methods usually differ from the control, in results.md and in the papers."""

FEWEST_STEPS = 50
"""Optimizer steps of a run below which a student from random weights has hardly begun to learn.

After 16 steps, resnet8x4 told ten kinds of clothes apart with 39 %; after 282, resnet8 the hundred
classes of CIFAR-100 with 13 %.
"""

COARSE = 1.5
"""Standard error in points above which test images are called few.

A difference of two arms on the same images has about as large an error as one accuracy, and is
shown from about two of them: three points.
"""


ACCURACIES = ("top1", "knn", "linear")
"""Metrics that are shares of the test images, in percent."""

DETECTION = ("AP50", "AP", "voc_AP50")
"""Metrics of which guessing gives 0."""


def chance(
    metric: str, classes: int, images: int | None = None, present: Sequence[int | None] = ()
) -> float | None:
    """Return the metric that guessing gives, in percent; None if it is not known.

    Args:
        metric: An accuracy, of which each class is guessed equally often, `mAP`, or a precision of
            detections.
        classes: Number of classes.
        images: Number of images, for `mAP`.
        present: How many of them have each class, for `mAP`; None where it is not known.
    """
    if metric in DETECTION:
        return 0.0
    if metric in ACCURACIES and classes > 1:
        return 100 / classes
    known = [count for count in present if count is not None]
    if metric == "mAP" and images and len(known) == classes > 0:
        return 100 * sum(known) / classes / images
    return None


def by_guessing(metric_of_chance: float) -> str:
    """Return what `chance` gives in words.

    >>> by_guessing(100 / 3)
    '33.3 by guessing'
    """
    return f"{metric_of_chance:.1f} by guessing"


def standard_error(accuracy: float, images: int) -> float:
    """Return the standard error of an accuracy, in points.

    It is that of the choice of test images alone; seeds vary besides. One right and one wrong are
    added, as Agresti and Coull (The American Statistician 52, 1998) do: an accuracy of 100 % on a
    handful of images is not certain.

    Args:
        accuracy: In percent.
        images: How many images it was measured on.

    >>> [round(standard_error(*x), 2) for x in ((90.0, 900), (70.0, 60), (100.0, 20))]
    [1.0, 5.95, 4.66]
    """
    share = (accuracy * images + 100.0) / (images + 2)
    return math.sqrt(share * (100.0 - share) / images)


def points_of_one(images: int) -> float:
    """Return by how many points one image changes an accuracy."""
    return 100.0 / images


def few_images(accuracy: float, images: int, *, split: str = "test") -> str:
    """Say that there are too few images to see the gain of most methods; empty if there are enough.

    Args:
        accuracy: Accuracy of a network like those that are compared, in percent.
        images: How many images measure it.
        split: Name of their split.
    """
    what = f"The {images:,} {split} images"
    return _few(what, f"an accuracy of {accuracy:.0f} %", accuracy, images, "images")


def few_labels(labels: int, noun: str, images: int, *, split: str = "test") -> str:
    """Say the same of images with any number of labels or objects, of which a share is found.

    Args:
        labels: How many labels or objects there are in all images.
        noun: What they are, such as `objects`.
        images: Number of images.
        split: Name of their split.
    """
    what = f"The {labels:,} {noun} in {images:,} {split} images"
    return _few(what, "a share of 50 % of them", 50.0, labels, noun)


def _few(what: str, share: str, percent: float, count: int, noun: str) -> str:
    error = standard_error(percent, count)
    if error <= COARSE:
        return ""
    enough = _rounded_up(count * (error / USUAL_GAIN) ** 2)
    return (
        f"{what} are few: the standard error of {share} is {error:.1f} points (one is "
        f"{points_of_one(count):.2f}). Methods usually differ from the control by about "
        f"{USUAL_GAIN:.0f} point, which so few can hardly tell from chance: about {enough:,} "
        f"{noun} have a standard error of that size."
    )


def few_steps(steps: int) -> str:
    """Say that a run from random weights is too short to learn; empty if it is not.

    Args:
        steps: Optimizer steps of the whole run.
    """
    if steps >= FEWEST_STEPS:
        return ""
    return (
        f"The run has {steps:,} optimizer step{'s' * (steps != 1)} in all: a student from random "
        f"weights has hardly begun to learn before {FEWEST_STEPS}, and may be near chance."
    )


def _rounded_up(count: float) -> int:
    """Return a number rounded up to two digits."""
    unit = int(10 ** max(0, math.floor(math.log10(max(count, 1.0))) - 1))
    return math.ceil(count / unit) * unit
