"""Read numbers, flags and ids as the programs that write annotations spell them."""

import re
from collections.abc import Hashable, Sequence
from math import isnan, nan

_NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]+)?")
_THREE_DIGITS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
_INTEGER = re.compile(r"(-?[0-9]{1,18})(\.0*)?")
_NUMERIC = (int, float)
_INFINITE = 1e300
_FLAGS = {"true": True, "yes": True, "false": False, "no": False, "": False, "unspecified": False}


def number(value: object) -> float:
    """Return a finite number, also of a text such as `12`, `1.5` or `1,20`; NaN for anything else.

    A comma is a decimal comma; `1,200`, which could also be 1200, is NaN.
    """
    if isinstance(value, str):
        text = value.strip()
        if not _NUMBER.fullmatch(text) or _THREE_DIGITS.fullmatch(text):
            return nan
        value = float(text.replace(",", "."))
    if isinstance(value, bool) or not isinstance(value, _NUMERIC):
        return nan
    # A whole number of hundreds of digits has no float; NaN is not below any number.
    return float(value) if abs(value) < _INFINITE else nan


def numbers(values: Sequence[object]) -> tuple[list[float], str]:
    """Return coordinates as numbers, and why the first of them is not a number; "" if all are."""
    coordinates = [number(value) for value in values]
    for value, coordinate in zip(values, coordinates, strict=True):
        if isnan(coordinate):
            return coordinates, _fault(value)
    return coordinates, ""


def _fault(value: object) -> str:
    if isinstance(value, str) and _THREE_DIGITS.fullmatch(value.strip()):
        return f"box with the corner {value.strip()!r}, which could be thousands or a fraction"
    text = repr(value)
    return (
        f"box with a corner that is not a number ({text if len(text) <= 40 else text[:37] + '…'})"
    )


def flag(value: object) -> bool | None:
    """Return a flag written as 1 or 0, true or false, yes or no; missing is False.

    None stands for a value that is none of these.
    """
    if value is None or value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    return {1.0: True, 0.0: False}.get(number(value))


def key(value: object) -> Hashable:
    """Return an id such that 1, 1.0, "1" and "01" are the same; a list and the like as text."""
    if type(value) is int:
        return value
    if isinstance(value, str) and (match := _INTEGER.fullmatch(value.strip())):
        return int(match[1])
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, Hashable) and not isinstance(value, bool) else repr(value)
