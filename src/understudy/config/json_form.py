"""Read JSON files of a declared form, and say in one sentence what is wrong with others.

A form is

    str, int, float, bool   text, whole number, number (whole or not), yes or no
    None                    null
    (form, form)            any of these forms
    [form]                  list of values of a form
    {"key": form}           group with that key, and perhaps others; `"key?"` may be missing
    {str: form}             group of any keys, with values of a form
    Such(form, fault)       a form, and no fault in what it holds, such as lists of other lengths
    object                  anything
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.errors import RunError, UnderstudyError

Form = Any

_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    list: "a list",
    dict: "a group of keys",
}


@dataclass(frozen=True)
class Such:
    """A form, and what must be true of its content beyond types.

    Attributes:
        form: The form.
        fault: Returns what is wrong with content of this form, such as `rows of other lengths`;
            empty if nothing is.
    """

    form: Form
    fault: Callable[[Any], str]


def parse_json(path: Path, *, remedy: str, error: type[UnderstudyError] = RunError) -> Any:
    """Return the content of a JSON file, whatever its form.

    Args:
        path: The file.
        remedy: What to do about a damaged file, for the error.
        error: Class of the error.

    Raises:
        UnderstudyError: The file cannot be read or is not JSON; of the class `error`.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as cause:
        raise error(f"{path} cannot be read ({cause.strerror}); {remedy}.") from cause
    except (ValueError, RecursionError) as cause:
        raise error(f"{path} is damaged, it is not JSON ({cause}); {remedy}.") from cause


def check_form(
    content: Any,
    form: Form,
    path: Path | str,
    *,
    remedy: str,
    error: type[UnderstudyError] = RunError,
) -> None:
    """Refuse content of another form.

    Args:
        content: What was read.
        form: As in the description of this module.
        path: Where it was read, for the error.
        remedy: What to do about it, for the error.
        error: Class of the error.

    Raises:
        UnderstudyError: A key is missing or a value has another type; of the class `error`.
    """
    if problem := _problem(content, form, ""):
        raise error(
            f"{path} {problem}: it is damaged, or from another version of Understudy; {remedy}."
        )


def _problem(content: Any, form: Form, place: str) -> str:
    """Return what is wrong with a value, as the end of a sentence; empty if nothing is."""
    if isinstance(form, Such):
        problem = _problem(content, form.form, place)
        fault = "" if problem else form.fault(content)
        return problem or (f"holds {fault}{f' in {place}' if place else ''}" if fault else "")
    if isinstance(form, tuple):
        problems = [_problem(content, one, place) for one in form]
        if "" in problems:
            return ""
        # Of the alternatives, the one of the same kind as the value says more.
        kinds = [type(content) in (_bare(one), type(_bare(one))) for one in form]
        return problems[kinds.index(True)] if any(kinds) else _other(content, form, place)
    if isinstance(form, Mapping):
        return _group_problem(content, form, place)
    if isinstance(form, list):
        if not isinstance(content, list):
            return _other(content, form, place)
        parts = (_problem(x, form[0], f"{place}[{i}]") for i, x in enumerate(content))
        return next(filter(None, parts), "")
    return "" if _is(content, form) else _other(content, form, place)


def _group_problem(content: Any, form: Mapping[Any, Form], place: str) -> str:
    if not isinstance(content, dict):
        return _other(content, form, place)
    prefix = f"{place}." if place else ""
    if str in form:
        parts = (_problem(x, form[str], f"{prefix}{key}") for key, x in content.items())
        return next(filter(None, parts), "")
    absent = sorted(k for k in form if not k.endswith("?") and k not in content)
    if absent:
        return f"has no {', '.join(f'{prefix}{key}' for key in absent)}"
    present = {key.removesuffix("?"): inner for key, inner in form.items()}
    parts = (_problem(content[k], f, f"{prefix}{k}") for k, f in present.items() if k in content)
    return next(filter(None, parts), "")


def _is(content: Any, form: Form) -> bool:
    if form is object:
        return True
    if form is None:
        return content is None
    if form in (int, float) and isinstance(content, bool):
        return False
    return isinstance(content, int | float if form is float else form)


def _other(content: Any, form: Form, place: str) -> str:
    expected = " or ".join(_word(one) for one in (form if isinstance(form, tuple) else (form,)))
    actual = _WORDS.get(type(content), "something else")
    return f"holds {actual} {f'as {place}' if place else ''}, not {expected}".replace(" ,", ",")


def _bare(form: Form) -> Form:
    return _bare(form.form) if isinstance(form, Such) else form


def _word(form: Form) -> str:
    form = _bare(form)
    kind = dict if isinstance(form, Mapping) else list if isinstance(form, list) else form
    return _WORDS[type(None) if kind is None else kind]
