"""Whether the labels of the data mean to a network, or to other images, what they mean here."""

from collections.abc import Sequence

from understudy.errors import DataError


def check(classes: Sequence[str], others: Sequence[str], *, of: str = "teacher") -> None:
    """Refuse other classes than those of the data, or the same in another order.

    Class names that are only numbers say nothing but how many there are. Nothing is checked if
    either side does not know its classes.

    Args:
        classes: Of the data.
        others: Of what the data are for.
        of: What that is.

    Raises:
        DataError: Another number of classes, other names, or another order.
    """
    if not classes or not others:
        return
    if len(classes) != len(others):
        raise DataError(
            f"The data have {len(classes)} classes but the {of} {len(others)}; use data of the "
            f"classes of the {of}, or another {of}."
        )
    if all(c.isdecimal() for c in classes) or all(c.isdecimal() for c in others):
        return
    for i, (here, there) in enumerate(zip(classes, others, strict=True)):
        if here != there:
            first = f"class {i} is {here!r} in the data but {there!r} to the {of}"
            raise DataError(_difference(first, of, reordered=sorted(classes) == sorted(others)))


def _difference(first: str, of: str, *, reordered: bool) -> str:
    if reordered:
        return f"The classes have another order: {first}; name the class folders in its order."
    return f"The classes have other names: {first}; rename the classes or take another {of}."
