"""Whether the labels of the data mean to the teacher what they mean here."""

from collections.abc import Sequence

from understudy.errors import DataError


def check(classes: Sequence[str], teacher_classes: Sequence[str]) -> None:
    """Refuse a teacher whose classes are not the classes of the data, in the same order.

    Class names that are only numbers say nothing but how many there are. Nothing is checked if
    either side does not know its classes.

    Raises:
        DataError: Another number of classes, other names, or another order.
    """
    if not classes or not teacher_classes:
        return
    if len(classes) != len(teacher_classes):
        raise DataError(
            f"The data have {len(classes)} classes but the teacher {len(teacher_classes)}; "
            "use the data the teacher was trained on, or a method that needs no classes."
        )
    if all(c.isdecimal() for c in classes) or all(c.isdecimal() for c in teacher_classes):
        return
    for i, (here, there) in enumerate(zip(classes, teacher_classes, strict=True)):
        if here != there:
            raise DataError(_difference(i, here, there, sorted(classes) == sorted(teacher_classes)))


def _difference(i: int, here: str, there: str, reordered: bool) -> str:
    first = f"class {i} is {here!r} in the data but {there!r} to the teacher"
    if reordered:
        return f"The classes have another order: {first}; name the class folders in its order."
    return f"The classes have other names: {first}; rename the classes or take another teacher."
