"""Build frozen dataclasses from plain data (dictionaries, lists, numbers, strings), key by key."""

from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse_from_object

from understudy.errors import RecipeError, suggestion

_T = TypeVar("_T")


def build(cls: type[_T], content: Any, path: str = "") -> _T:
    """Return an instance of the dataclass `cls` from a dictionary, checked key by key.

    A field with `least` in its metadata refuses smaller numbers. A class with a `shorthand` also
    takes a string, for the field of that name.

    Raises:
        RecipeError: An unknown key, or a value that does not fit; names the dotted path.
    """
    if isinstance(content, str) and (shorthand := getattr(cls, "shorthand", None)):
        content = {shorthand: content}
    if not isinstance(content, dict):
        raise RecipeError(f"'{path}' must be a group of keys, not {content!r}.")
    hints = get_type_hints(cls)
    known = {f.name: f.metadata for f in fields(cls)}  # type: ignore[arg-type]
    for key in content:
        if key not in known:
            dotted = f"{path}.{key}" if path else key
            raise RecipeError(
                f"Unknown key '{dotted}'{suggestion(key, known)}. Known here: {', '.join(known)}."
            )
    values = {}
    for key, value in content.items():
        dotted = f"{path}.{key}" if path else key
        values[key] = convert(hints[key], value, dotted)
        least = known[key].get("least")
        if least is not None and values[key] is not None and values[key] < least:
            raise RecipeError(f"'{dotted}' is {value}; it must be at least {least}.")
    return cls(**values)


def convert(hint: Any, value: Any, path: str) -> Any:
    """Return `value` converted to the type `hint`.

    Raises:
        RecipeError: It has another type; names the dotted path.
    """
    origin, options = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return build(hint, value, path)  # type: ignore[arg-type]
    if origin in (UnionType, Union):
        if value is None and NoneType in options:
            return None
        inner = [o for o in options if o is not NoneType]
        return convert(inner[0], value, path) if len(inner) == 1 else value
    if origin is Literal:
        if value not in options:
            names = [str(o) for o in options]
            raise RecipeError(
                f"'{path}' is {value!r}{suggestion(str(value), names)}; "
                f"it can be: {', '.join(names)}."
            )
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(convert(options[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    if origin is dict and value is None:
        return {}  # In YAML, `kd:` without a value is a method with its defaults.
    if origin is dict and isinstance(value, dict):
        return {str(k): convert(options[1], v, f"{path}.{k}") for k, v in value.items()}
    if hint is Any:
        return value
    if hint is float and type(value) in (int, float):
        return float(value)
    if _is_instance(value, origin or hint):
        return value
    raise RecipeError(f"'{path}' is {value!r}; it must be {_words(hint)}.")


def _is_instance(value: Any, kind: Any) -> bool:
    if kind in (int, float):
        return type(value) is kind  # not `isinstance`, to which True is an int
    return isinstance(kind, type) and isinstance(value, kind)


def _words(hint: Any) -> str:
    several = {tuple: "a list", dict: "a group of keys"}
    return several.get(get_origin(hint)) or f"of type {getattr(hint, '__name__', hint)}"


def documentation(cls: type, prefix: str = "") -> dict[str, str]:
    """Return dotted path → docstring of the field."""
    hints = get_type_hints(cls)
    docs: dict[str, str] = {}
    for parameter in parse_from_object(cls).params:
        name = parameter.arg_name
        docs[f"{prefix}{name}"] = parameter.description or ""
        if is_dataclass(hints[name]):
            docs |= documentation(hints[name], f"{prefix}{name}.")
    return docs


def leaves(cls: type, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield dotted path, type and default of every key a recipe can have."""
    hints = get_type_hints(cls)
    for f in fields(cls):
        if is_dataclass(hints[f.name]):
            yield from leaves(hints[f.name], f"{prefix}{f.name}.")
        else:
            default = f.default if f.default is not MISSING else {}  # of `default_factory=dict`
            yield f"{prefix}{f.name}", hints[f.name], default
