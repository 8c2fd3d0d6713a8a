"""Check that class numbers mean the same in the data and in a network or another split."""

from collections.abc import Sequence

from understudy.errors import DataError


def check(classes: Sequence[str], others: Sequence[str], *, of: str = "teacher") -> None:
    """Refuse classes that differ from those of the data in number, name or order.

    Where the names of one side are only numbers, only the count is compared. Nothing is checked if
    either side does not know its classes.

    Args:
        classes: Class names of the data.
        others: Class names of what the data are for.
        of: What the data are for, as errors call it: `teacher`, `student`, `training split`.

    Raises:
        DataError: The classes differ in number, name or order.
    """
    if not classes or not others:
        return
    if len(classes) != len(others):
        raise DataError(
            f"The data have {len(classes)} classes but the {of} has {len(others)}; use data with "
            f"the classes of the {of}, or another {of}."
        )
    if all(name.isdecimal() for name in classes) or all(name.isdecimal() for name in others):
        return
    for i, (name, other) in enumerate(zip(classes, others, strict=True)):
        if name != other:
            first = f"class {i} is {name!r} in the data but {other!r} for the {of}"
            raise DataError(_difference(first, of, reordered=sorted(classes) == sorted(others)))


def _difference(first: str, of: str, *, reordered: bool) -> str:
    if reordered:
        return (
            f"The classes are in another order: {first}; rename the class folders so that they "
            "sort in its order."
        )
    return f"The classes have other names: {first}; rename the classes or use another {of}."
