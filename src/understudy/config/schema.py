"""Build frozen dataclasses from plain data (dictionaries, lists, numbers, strings), key by key."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import date
from functools import cache
from numbers import Integral, Real
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse_from_object

from understudy.config.limits import AUTO, LARGEST, LARGEST_WHOLE, OrAuto
from understudy.errors import RecipeError, short, suggestion

_T = TypeVar("_T")

_DEEPEST = 50
"""Levels of groups and lists in a recipe; the deepest shipped has six."""

_MOST_VALUES = 100_000
"""Keys and values of a recipe, where the same one counts wherever it is repeated."""

_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    tuple: "a list",
    dict: "a group of keys",
}


def build(cls: type[_T], content: Any, path: str = "") -> _T:
    """Return an instance of the dataclass `cls` from a dictionary, checked key by key.

    A class with a `shorthand` also takes a string, for the field of that name.

    Raises:
        RecipeError: An unknown key, or a value that does not fit; names the dotted path.
    """
    if isinstance(content, str) and (shorthand := getattr(cls, "shorthand", None)):
        content = {shorthand: content}
    if not isinstance(content, dict):
        raise RecipeError(f"'{path}' must be a group of keys, not {short(content)}.")
    known = hints_of(cls)  # type: ignore[arg-type]
    values = {}
    for key, value in content.items():
        dotted = _joined(path, key)
        if key not in known:
            raise RecipeError(
                f"Unknown key '{dotted}'{suggestion(key, known)}. Known here: {', '.join(known)}."
            )
        values[key] = convert(known[key], value, dotted)
    return cls(**values)


def check_plain(content: Any) -> None:
    """Refuse plain data that nobody writes by hand: too deep, too large, or in a circle.

    Raises:
        RecipeError: More than 50 levels, or more than 100,000 values.
    """
    level, values = [content], 0
    for _ in range(_DEEPEST):
        level = [
            inner
            for value in level
            if isinstance(value, Mapping | list | tuple)
            for inner in (value.values() if isinstance(value, Mapping) else value)
        ]
        values += len(level)
        if values > _MOST_VALUES:
            raise RecipeError(
                f"The recipe has more than {_MOST_VALUES:,} values, repeated ones included: a "
                "recipe is a few dozen keys."
            )
    if level:
        raise RecipeError(
            f"The recipe is nested more than {_DEEPEST} levels deep: a recipe has a few."
        )


def plain(value: Any, path: str = "") -> Any:
    """Return data in the types of YAML and JSON: tuples as lists, numbers of NumPy as Python's.

    Raises:
        RecipeError: A value has no form in YAML, such as a function; names the dotted path.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        return {k: plain(v, f"{path}.{k}" if path else str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, f"{path}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, date):
        raise RecipeError(
            f"'{path}' is a date to YAML; it must be text: write '{value}' in quotes."
        )
    raise RecipeError(
        f"'{path}' is {short(value)}, which YAML has no form for: a recipe holds texts, numbers, "
        "lists and groups of keys."
    )


def convert(hint: Any, value: Any, path: str) -> Any:
    """Return `value` converted to the type `hint`, within the limits that are declared in it.

    Raises:
        RecipeError: It has another type, or is out of its limits; names the dotted path.
    """
    origin, options = get_origin(hint), get_args(hint)
    if origin is Annotated:
        if isinstance(value, str) and value == AUTO and may_be_auto(hint):
            return AUTO
        converted = convert(options[0], value, path)
        for limit in options[1:]:
            limit.check(converted, path)
        return converted
    if origin in (UnionType, Union):
        return _first_that_fits(options, value, path)
    if origin is Literal:
        return _listed(options, value, path)
    if origin is tuple and isinstance(value, list | tuple):
        return _tuple(options, value, path)
    if origin is dict and value is None:
        return {}  # In YAML, `kd:` without a value is a method with its defaults.
    if origin is dict and options[0] is str and isinstance(value, Mapping):
        return {k: convert(options[1], v, _joined(path, k)) for k, v in value.items()}
    if hint in _SCALARS:
        return _SCALARS[hint](value, path)
    if is_dataclass(hint):
        return build(hint, value, path)  # type: ignore[arg-type]
    kind = origin or hint
    if hint is Any or (isinstance(kind, type) and isinstance(value, kind)):
        return value
    raise _wrong(hint, value, path)


def limits(hint: Any) -> str:
    """Return the limits that are declared in a type, such as `at least 1`; empty without any."""
    if get_origin(hint) is Annotated:
        return " and ".join(filter(None, map(str, get_args(hint)[1:])))
    inner = [limits(option) for option in get_args(hint) if get_origin(hint) is not Literal]
    return next(filter(None, inner), "")


def may_be_auto(hint: Any) -> bool:
    """Return True if a key of this type may be `auto`."""
    limits_of = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return any(isinstance(limit, OrAuto) for limit in limits_of)


def bare(hint: Any) -> Any:
    """Return a type without its limits."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


@cache
def hints_of(thing: Any) -> dict[str, Any]:
    """Return name → type of the fields of a class or the parameters of a function, with limits."""
    hints = get_type_hints(thing, include_extras=True)
    if not is_dataclass(thing):
        return hints
    return {field.name: hints[field.name] for field in fields(thing)}


def _joined(path: str, key: Any) -> str:
    """Return the dotted path of a key.

    Raises:
        RecipeError: The key is no text.
    """
    if not isinstance(key, str):
        where = f" in '{path}'" if path else ""
        raise RecipeError(
            f"The key {short(key)}{where} is no text: write it in quotes. (YAML reads yes, no, on "
            "and off as true and false.)"
        )
    return f"{path}.{_text(key, path)}" if path else _text(key, "key")


def _first_that_fits(options: tuple[Any, ...], value: Any, path: str) -> Any:
    """Return `value` converted to the first of several types that takes it."""
    if value is None and NoneType in options:
        return None
    # The error to report is that of the type which was probably meant.
    several = isinstance(value, list | tuple)
    lists = {o: "tuple" in str(get_origin(bare(o))) for o in options if o is not NoneType}
    errors = []
    for option in sorted(lists, key=lambda o: several != lists[o]):
        try:
            return convert(option, value, path)
        except RecipeError as error:
            errors.append(error)
    number = next((o for o in lists if bare(o) in (int, float)), None)
    if isinstance(value, str) and number and any(lists.values()):
        raise RecipeError(
            f"{str(errors[0]).rstrip('.')}, or a list of numbers: [32, 16] in a file, 32 16 "
            "behind a flag."
        )
    raise errors[0]


def _listed(options: tuple[Any, ...], value: Any, path: str) -> Any:
    if value not in options:
        names = [str(o) for o in options]
        raise RecipeError(
            f"'{path}' is {short(value)}{suggestion(str(value), names)}; "
            f"it can be: {', '.join(names)}."
        )
    return value


def _tuple(options: tuple[Any, ...], value: list[Any] | tuple[Any, ...], path: str) -> Any:
    """Return a list as a tuple: of any length if the type ends in `...`, else of its length."""
    if Ellipsis in options:
        options = (options[0],) * len(value)
    if len(value) != len(options):
        raise RecipeError(f"'{path}' is {short(value)}; it must be a list of {len(options)}.")
    return tuple(
        convert(option, x, f"{path}[{i}]")
        for i, (option, x) in enumerate(zip(options, value, strict=True))
    )


# One function for each scalar: the value in Python's own type, or a `RecipeError`.
def _bool(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(bool, value, path)
    return value


def _int(value: Any, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise _wrong(int, value, path)
    number = int(value)
    if abs(number) > LARGEST_WHOLE:
        raise RecipeError(f"'{path}' is {short(number)}; it must be at most {LARGEST_WHOLE}.")
    return number


def _float(value: Any, path: str) -> float:
    # True is a number to Python, and numbers of NumPy are some to `numbers`.
    if isinstance(value, bool) or not isinstance(value, Real):
        raise _wrong(float, value, path)
    try:
        number = float(value)
    except OverflowError:  # a whole number beyond 64 bits
        number = math.inf
    if not abs(number) <= LARGEST:
        raise RecipeError(
            f"'{path}' is {short(value)}; it must be a finite number of at most {LARGEST:g}."
        )
    return number


def _text(value: Any, path: str) -> str:
    if isinstance(value, PurePath):
        value = str(value)
    if not isinstance(value, str):
        raise _wrong(str, value, path)
    if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in value):
        raise RecipeError(
            f"'{path}' is {short(value)}, which holds a character that no file can hold."
        )
    return value


_SCALARS: dict[Any, Callable[[Any, str], Any]] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _text,
}


def _wrong(hint: Any, value: Any, path: str) -> RecipeError:
    """Return the error of a value of another type, with the fix where it is a matter of quotes."""
    kind = get_origin(hint) or hint
    words = _WORDS.get(kind) or f"of type {getattr(kind, '__name__', kind)}"
    fix = ""
    if isinstance(value, str) and kind in (int, float) and is_number(value):
        fix = f"; write it as {float(value):g}, without quotes"
    elif kind is str and isinstance(value, Real):
        fix = "; write it in quotes"
    return RecipeError(f"'{path}' is {short(value)}; it must be {words}{fix}.")


def is_number(text: str) -> bool:
    """Return True for a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


@cache
def documentation(cls: type, prefix: str = "") -> dict[str, str]:
    """Return dotted path → docstring of the field."""
    hints = hints_of(cls)
    docs: dict[str, str] = {}
    # Of a class that extends another, the fields of both.
    described = [each for each in reversed(cls.__mro__) if is_dataclass(each)]
    for parameter in (each for one in described for each in parse_from_object(one).params):
        name = parameter.arg_name
        docs[f"{prefix}{name}"] = parameter.description or ""
        if is_dataclass(hints[name]):
            docs |= documentation(hints[name], f"{prefix}{name}.")
    return docs


def leaves(cls: type, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield dotted path, type and default of every key a recipe can have."""
    hints = hints_of(cls)
    for f in fields(cls):
        if is_dataclass(hints[f.name]):
            yield from leaves(hints[f.name], f"{prefix}{f.name}.")
        else:
            default = f.default if f.default is not MISSING else {}  # of `default_factory=dict`
            yield f"{prefix}{f.name}", hints[f.name], default
