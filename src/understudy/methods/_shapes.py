"""Questions that several methods ask of the shapes of both networks."""

from understudy.errors import ShapeError
from understudy.features import Shapes


def chosen(shapes: Shapes, feature: str | None) -> str:
    """The feature named; without a name, the last stage.

    Raises:
        ShapeError: There is no such feature, or the last stage is a vector.
    """
    if feature is not None:
        shapes.kind(feature)
        return feature
    last = shapes.stages[-1]
    if shapes.kind(last) == "vector":
        raise ShapeError(
            f"The last stage {last!r} of {shapes.owner} is a vector of shape {shapes[last]}, not "
            "a map or tokens; name the feature to compare, such as 'penultimate'."
        )
    return last


def same_classes(method: str, student: Shapes, teacher: Shapes) -> int:
    """How many classes the logits of both networks have.

    Raises:
        ShapeError: A network has no logits, or they have different classes.
    """
    ours, theirs = student.vector("logits"), teacher.vector("logits")
    if ours != theirs:
        raise ShapeError(
            f"{method} compares logits of the same classes, but {student.owner} has {ours} classes "
            f"and {teacher.owner} has {theirs}; use a teacher of your classes, or a method that "
            "compares features, such as lshfm."
        )
    return ours
