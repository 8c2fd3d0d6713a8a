"""Warn of a teacher that is too bad to teach: no better than chance, or than its student."""

import logging
import math
from collections.abc import Mapping
from typing import Any

from understudy.experiment.evidence import ACCURACIES, by_guessing, chance, standard_error

LOGGER = logging.getLogger("understudy")


def teacher_warning(
    metric: str,
    teacher: float | None,
    students: Mapping[str, float],
    *,
    classes: int,
    images: int | None = None,
    name: str = "",
) -> str:
    """Say that a teacher is too bad to teach; empty if it is not, or if nothing is known of it.

    Args:
        metric: Headline metric; higher is better.
        teacher: The teacher's own value on the test images.
        students: What it is held against, such as the control → mean value.
        classes: Number of classes; chance is asked of an accuracy alone.
        images: Number of test images: of an accuracy, a lead of the student within two standard
            errors of a difference is none. None if it is not known.
        name: Name of the teacher, if it is one of several.
    """
    if teacher is None:
        return ""
    called = f"The teacher {name} has a {metric} of" if name else f"The teacher's own {metric} is"
    value = f"{called} {teacher:.2f}"
    fix = "check the order of its classes, its input size and its normalisation"
    guessed = chance(metric, classes) if metric in ACCURACIES else None
    if guessed is not None and teacher <= guessed:
        return f"{value}, no better than chance ({by_guessing(guessed)}): {fix}."
    noise = 0.0
    if metric in ACCURACIES and images:
        noise = 2 * math.sqrt(2) * standard_error(teacher, images)
    better = {name: x for name, x in students.items() if x > teacher + noise}
    if better:
        above, best = max(better.items(), key=lambda pair: pair[1])
        return f"{value}, below the {above} ({best:.2f}): {fix}."
    return ""


def warn_of_teachers(
    metric: str,
    teachers: Mapping[str, Mapping[str, Any]],
    student: float | None,
    *,
    classes: int,
    images: int | None = None,
) -> None:
    """Warn of the bad teachers of a run, held against its student.

    Args:
        metric: As for `teacher_warning`.
        teachers: Name → what is known of a teacher, with its `metrics`.
        student: The student's value, if it is known.
        classes: As for `teacher_warning`.
        images: As for `teacher_warning`.
    """
    others = {} if student is None else {"student": student}
    for name, one in teachers.items():
        value = one["metrics"].get(metric)
        if warning := teacher_warning(
            metric, value, others, classes=classes, images=images, name=name
        ):
            # Of each run of a comparison the student is another, but the teacher is the same.
            LOGGER.warning(warning, extra={"subject": f"teacher {name} {value}"})
