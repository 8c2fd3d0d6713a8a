"""Warn of a teacher that is too bad to teach: no better than chance, or than its student."""

import math
from collections.abc import Mapping


def teacher_warning(
    metric: str,
    teacher: float | None,
    students: Mapping[str, float],
    *,
    classes: int,
    images: int | None = None,
) -> str:
    """Say that a teacher is too bad to teach; empty if it is not, or if nothing is known of it.

    Args:
        metric: Headline metric; higher is better.
        teacher: The teacher's own value on the test images.
        students: What it is held against, such as the control → mean value.
        classes: Number of classes; chance is known for `top1` alone.
        images: Number of test images: of `top1`, a lead of the student within two standard errors
            of a difference is none. None if it is not known.
    """
    if teacher is None:
        return ""
    value = f"The teacher's own {metric} is {teacher:.2f}"
    fix = "check the order of its classes, its input size and its normalisation"
    chance = 100 / classes if metric == "top1" and classes else None
    if chance is not None and teacher <= chance:
        return f"{value}, no better than chance ({chance:.2f}): {fix}."
    noise = 0.0
    if metric == "top1" and images:
        noise = 2 * math.sqrt(2 * max(teacher * (100 - teacher), 0.0) / images)
    better = {name: x for name, x in students.items() if x > teacher + noise}
    if better:
        name, best = max(better.items(), key=lambda pair: pair[1])
        return f"{value}, below the {name} ({best:.2f}): {fix}."
    return ""
