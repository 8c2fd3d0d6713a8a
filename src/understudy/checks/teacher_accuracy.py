"""The teacher's own accuracy, and whether another input or order of its classes is far better.

A teacher whose images are normalised for another network, or whose classes are in another order,
looks like a bad teacher, and nothing in the training of its student tells the difference. Scores of
the same images are compared: another preparation counts if it is better by five points and by three
standard errors.
"""

from collections.abc import Iterator
from typing import Any, cast

from understudy.checks import _class_orders
from understudy.checks._input_trials import Preparation
from understudy.checks._teacher_judgement import Variant, judgement
from understudy.checks.examined import Examined
from understudy.checks.finding import Finding, Level
from understudy.experiment.evidence import by_guessing
from understudy.models.network import Network

SHORT, OF_METHODS, SECONDS = True, False, 2.5

CHECK = "teacher_accuracy"

_MEASURES = {"class": "accuracy", "classes": "mean precision"}
"""Score of an image by what its labels tell."""

_UNKNOWN_CLASSES = "cannot be compared with those of the data"
"""Words of the library's warning that the order of a teacher's classes is not known."""


def check(examined: Examined) -> Iterator[Finding]:
    """Measure the teacher, and try other inputs and orders of its classes where it could gain."""
    teacher, classes = examined.experiment.teacher, examined.images.train.classes
    if not isinstance(teacher, Network) or not examined.task.uses_labels:
        return
    judged = judgement(examined)
    if judged is None:
        number = teacher.num_classes or "no"
        yield Finding(
            CHECK,
            "note",
            f"The teacher has {number} classes and the data {len(classes)}: its accuracy cannot be "
            "measured, which methods that compare features do not need.",
        )
        return
    metric = examined.task.headline
    said = (
        f"The teacher's own {metric} on {judged.images} {judged.split} images is {judged.value:.1f}"
    )
    guessed = "" if judged.chance is None else f" ({by_guessing(judged.chance)})"
    if judged.better is not None:
        yield _mended(examined, judged.better, judged.level, said)
    elif judged.at_chance and not judged.untrained:  # of which `reset_head` tells
        yield Finding(
            CHECK,
            judged.level,
            f"{said}{guessed}, no better than its answers for other images, which score "
            f"{judged.random:.1f}, and none of {judged.tried} other normalisations and sizes, nor "
            "another order of its classes, changes that; a linear probe on its features scores "
            f"{judged.probe:.1f}.",
            advice="Check teacher.weights, and measure it by `understudy evaluate`.",
        )
    elif not judged.at_chance:
        # Now the order is known, by the images.
        examined.warnings[:] = [w for w in examined.warnings if _UNKNOWN_CLASSES not in w]
        yield Finding(CHECK, "note", f"{said}{guessed}.")


def _mended(examined: Examined, better: Variant, level: Level, said: str) -> Finding:
    """Return the finding that a teacher would be far better in another way."""
    spec, classes = examined.recipe.teacher, examined.images.train.classes
    fix: dict[str, Any] = {}
    words = list(better.preparation.words)
    own = Preparation.of(cast(Network, examined.experiment.teacher))
    if (better.preparation.mean, better.preparation.std) != (own.mean, own.std):
        fix["teacher.mean"] = [round(x, 6) for x in better.preparation.mean]
        fix["teacher.std"] = [round(x, 6) for x in better.preparation.std]
    if better.preparation.size != own.size:
        fix["teacher.size"] = better.preparation.size
    if better.order is not None:
        fix["teacher.classes"] = _class_orders.renamed(spec, classes, better.order)
        words.append(f"its classes in another order ({better.order_name})")
    advice, measure = "", _MEASURES[examined.task.truth]
    if better.preparation.reversed:
        advice = (
            "Name as teacher a function of a Python file (file.py:factory) that builds it behind "
            "a module which reverses the channels, `images.flip(1)`."
        )
    return Finding(
        CHECK,
        level,
        f"{said}; with {' and '.join(words)} its {measure} on {len(better.scores)} of them rises "
        f"from {100 * better.before:.1f} to {100 * float(better.scores.mean()):.1f}.",
        fix,
        advice,
    )
