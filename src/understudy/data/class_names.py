"""Compare class names: class numbers must mean the same in the data and in a network."""

import logging
import re
from collections.abc import Sequence

from understudy.errors import DataError

LOGGER = logging.getLogger("understudy")

_MOSTLY = 0.9
"""Share of equal names above which two spellings of many classes are of the same classes."""


def positions(classes: Sequence[str], others: Sequence[str]) -> list[int] | None:
    """Return for each class its position in `others`, by name; None if they do not have them all.

    Names are equal if they differ only in case, spaces, hyphens and underscores, unless another
    class has the same name then.

    Args:
        classes: Class names of the data; empty if unknown.
        others: Class names of a network; empty if unknown.
    """
    for key in (str, _plain):
        keys = [key(name) for name in others]
        sought = [key(name) for name in classes]
        unique = len(set(sought)) == len(sought)
        if classes and unique and all(keys.count(name) == 1 for name in sought):
            return [keys.index(name) for name in sought]
    return None


def nearest(classes: Sequence[str], spellings: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the spelling of a network's classes that names those of the data, else the first.

    Where a few names of ImageNet are spelt in yet another way (`crane`, `crane bird`), nine tenths
    of them at the same positions are enough, and the data's own names are returned.

    Args:
        classes: Class names of the data; empty if unknown.
        spellings: Class names of the network, in several spellings; empty if unknown.
    """
    for names in spellings:
        if positions(classes, names) is not None:
            return names
    published = spellings if len(spellings) > 1 else ()
    for names in published:
        same = [_plain(a) == _plain(b) for a, b in zip(classes, names, strict=False)]
        if len(names) == len(classes) and sum(same) > _MOSTLY * len(same):
            return tuple(classes)
    return spellings[0] if spellings else ()


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name.casefold())


def warn_of_alike(classes: Sequence[str]) -> None:
    """Warn of classes of which the names differ in spelling alone."""
    by_key: dict[str, list[str]] = {}
    for name in classes:
        by_key.setdefault(_plain(name), []).append(name)
    alike = [" and ".join(map(repr, names)) for names in by_key.values() if len(names) > 1]
    if alike:
        LOGGER.warning(
            f"The classes {alike[0]} differ only in case, spaces, hyphens or underscores"
            f"{f' (and {len(alike) - 1} more)' if len(alike) > 1 else ''}: if they are one class, "
            "give it one name."
        )


def comparable(classes: Sequence[str], others: Sequence[str]) -> bool:
    """Return True if both sides name their classes; numbers cannot be compared with words."""
    return bool(classes and others) and _are_numbers(classes) == _are_numbers(others)


def _are_numbers(names: Sequence[str]) -> bool:
    return all(name.isdecimal() for name in names)


def check(
    classes: Sequence[str], others: Sequence[str], *, of: str = "teacher", advice: str = ""
) -> None:
    """Refuse classes that differ from those of the data in number, name or order.

    Where only one side's names are numbers, only the count is compared. Nothing is checked if
    either side does not know its classes.

    Args:
        classes: Class names of the data.
        others: Class names of what the data are for.
        of: What the data are for, as errors call it: `teacher`, `student`, `training split`.
        advice: What to do; default: what helps where classes are folders.

    Raises:
        DataError: The classes differ in number, name or order.
    """
    if not classes or not others:
        return
    if len(classes) != len(others):
        advice = advice or f"use data with the classes of the {of}, or another {of}"
        raise DataError(
            f"The data have {len(classes)} classes but the {of} has {len(others)}; {advice}."
        )
    if not comparable(classes, others):
        return
    for i, (name, other) in enumerate(zip(classes, others, strict=True)):
        if name != other:
            first = f"class {i} is {name!r} in the data but {other!r} for the {of}"
            reordered = sorted(classes) == sorted(others)
            raise DataError(_difference(first, of, advice, reordered=reordered))


def _difference(first: str, of: str, advice: str, *, reordered: bool) -> str:
    if reordered:
        advice = advice or (
            "put them in its order: folders, tables and XML files are sorted by name, categories "
            "in JSON by id, names for YOLO as they are listed"
        )
        return f"The classes are in another order: {first}; {advice}."
    advice = advice or f"rename the classes or use another {of}"
    return f"The classes have other names: {first}; {advice}."
