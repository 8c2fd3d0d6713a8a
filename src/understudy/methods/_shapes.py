"""Checks of feature shapes that several methods share."""

from understudy.errors import ShapeError
from understudy.features import Shapes


def feature_or_last_stage(shapes: Shapes, feature: str | None) -> str:
    """Return the name `feature` after checking that it exists; if None, the last stage.

    Raises:
        ShapeError: The network has no such feature, or its last stage is a vector.
    """
    if feature is not None:
        shapes.kind(feature)  # raises if the network has no such feature
        return feature
    last = shapes.stages[-1]
    if shapes.kind(last) == "vector":
        raise ShapeError(
            f"The last stage {last!r} of {shapes.owner} is a vector of shape {shapes[last]}, not "
            "a map or tokens; name the feature to compare, such as 'penultimate'."
        )
    return last


def same_classes(method: str, student: Shapes, teacher: Shapes) -> int:
    """Return the number of classes of both networks' logits.

    Raises:
        ShapeError: A network has no logits, or the numbers differ.
    """
    student_classes, teacher_classes = student.vector("logits"), teacher.vector("logits")
    if student_classes != teacher_classes:
        raise ShapeError(
            f"{method} compares logits of the same classes, but {other_classes(student, teacher)}, "
            "or use a method that compares features, such as pefd."
        )
    return student_classes


def other_classes(student: Shapes, teacher: Shapes) -> str:
    """Return the numbers of classes, without the background, and how to train such a teacher."""
    ours, theirs = (
        (shapes.classes or shapes.vector("logits")) - shapes.background
        for shapes in (student, teacher)
    )
    if ours == theirs:
        return (
            f"the student {student.owner} has {student.vector('logits')} scores at a location and "
            f"the teacher {teacher.owner} has {teacher.vector('logits')}; use a teacher of the "
            "same anchors"
        )
    task = "--task detection " if student.background else ""
    return (
        f"the student {student.owner} has {ours} classes and the teacher {teacher.owner} has "
        f"{theirs}; train the teacher on your classes first (understudy train {task}--student.name "
        "NAME --student.weights pretrained …)"
    )
