"""Read numbers, flags and ids as the programs that write annotations spell them."""

import re
from collections.abc import Hashable, Sequence
from math import isfinite, nan

_NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]+)?")
_THREE_DIGITS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
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
    if isinstance(value, bool) or not isinstance(value, int | float):
        return nan
    # A whole number of hundreds of digits has no float.
    return float(value) if abs(value) < 1e300 and isfinite(value) else nan


def not_a_number(values: Sequence[object]) -> str:
    """Return why the first of some coordinates is not a number; "" if all are."""
    for value in values:
        if isinstance(value, str) and _THREE_DIGITS.fullmatch(value.strip()):
            return f"box with the corner {value.strip()!r}, which could be thousands or a fraction"
        if number(value) != number(value):
            return f"box with a corner that is not a number ({_short(value)})"
    return ""


def flag(value: object) -> bool | None:
    """Return a flag written as 1 or 0, true or false, yes or no; missing is False.

    None stands for a value that is none of these.
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    return {1.0: True, 0.0: False}.get(number(value))


def key(value: object) -> Hashable:
    """Return an id such that 1, 1.0 and "1" are the same; a list and the like as text."""
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, Hashable) and not isinstance(value, bool) else repr(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
