"""Recipes with a few keys that make no sense, or that nobody would write."""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import yaml
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from understudy import methods
from understudy.config.recipe import Recipe
from understudy.config.schema import bare, hints_of, leaves

Form = Literal["dictionary", "YAML", "flags"]


@dataclass(frozen=True)
class Wish:
    """What a user asks for.

    Attributes:
        form: How it is written.
        changes: Dotted path → value; a path may lead anywhere.
        text: A YAML file instead, as it is.
    """

    form: Form
    changes: dict[str, Any]
    text: str = ""


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


NUMBERS: list[Any] = [
    *(float("nan"), float("inf"), -float("inf"), -1, -5, -0.0, 0, 1, 2, 3, 8, 0.5, 1.5, 2.5, -0.1),
    *(1e-3, 1e-30, 5e-324, 1e38, -1e38, 1e39, 1e308, 10**20, 12345678901234567890, 10**400),
]
TEXTS: list[Any] = [
    *("", "[", "]", "{", "}", "*", "?", "%", "$x_", "[/x]", "|", "a" * 300, "a\0b", "\n", " ", "."),
    *(
        "..",
        "../x",
        "/",
        "/nowhere",
        "~",
        "1e-3",
        "0.1",
        "010",
        "nan",
        "true",
        "no",
        "null",
        "None",
    ),
    *("kd", "resnet8", "é", "\ud800", "a/b", "-", "--help", "stage1", "stage9", "logits", "auto"),
    *("penultimate", "file.py:f", "a:b", ":", "timm:", "torchvision:x", "hf:x", "x" * 5000, "1:30"),
]
OTHERS: list[Any] = [
    *(
        None,
        True,
        False,
        [],
        {},
        [float("nan")],
        [1],
        [0],
        [-1],
        ["a"],
        [[]],
        [None],
        [True],
        ["["],
    ),
    *({"a": 1}, {1: 2}, {True: 1}, {None: None}, {"": ""}, [3, 2, 1], [1, 1], [0.5, 0.5, 0.5]),
    *(_nested(40), _nested(500), [0.1] * 3, [1e39, 0, 0], {"name": "x"}, {"value": 1}, [1] * 40),
]

_LABELS = ("task", "total", "keys", "a/b", "a.b", "mine", "[/x]", "x" * 300, "", "control", "ä")
_GROUPS = ("data", "student", "teacher", "methods", "bank", "training", "name", "base", "rows")

UNTRIED = {"training.compile", "data.workers", "training.trackers"}
"""Keys of which valid values start processes or compilers: only nonsense is tried."""


def _plausible(hint: Any) -> list[Any]:
    """Values that a user would give to a key of this type."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    if get_origin(hint) is tuple:
        return [[x] for x in _plausible(get_args(hint)[0])] + [[], [0.1, 0.2, 0.3], [2, 3]]
    kinds: dict[Any, list[Any]] = {
        bool: [True, False],
        int: [1, 2, 3, 8, 16, 64],
        float: [0, 1, 0.5, 0.9, 0.1, 1e-3, 2.5],
    }
    if bare(hint) in kinds:
        return kinds[bare(hint)]
    return [x for inner in get_args(hint) for x in _plausible(inner)] if get_args(hint) else []


_HINTS = {path: hint for path, hint, _ in leaves(Recipe)} | {
    f"methods.{name}.{key}": hint
    for name in methods.names()
    for key, hint in hints_of(methods.find(name).__init__).items()
    if key in methods.hyper_parameters(methods.find(name))
}
KEYS: dict[str, list[Any]] = {path: _plausible(hint) for path, hint in _HINTS.items()}
KEYS |= {f"methods.{name}.weight": [0, 0.5, 100, {"value": 1}] for name in methods.names()}

STRANGE: dict[str, list[Any]] = {
    f"methods.{label}": [{"method": "kd"}, {"method": 5}, {}] for label in _LABELS
}
STRANGE |= {group: [] for group in _GROUPS}
STRANGE |= {f"{group}.{key}": [] for group in _GROUPS for key in ("", "lrr", "a\0", "x" * 300)}
"""Keys that do not exist, or are groups."""


def _fits(path: str, value: Any) -> bool:
    """False for values that are valid, but start something that takes long."""
    if path in UNTRIED:
        return not isinstance(value, bool | int | list) or value in (-1, -5)
    return True


@st.composite
def _change(draw: st.DrawFn) -> tuple[str, Any]:
    keys = KEYS if draw(st.integers(0, 9)) else STRANGE
    path = draw(st.sampled_from(list(keys)))
    nonsense = [*NUMBERS, *NUMBERS, *TEXTS, *OTHERS]
    values = keys[path] if keys[path] and draw(st.booleans()) else nonsense
    value = draw(st.sampled_from([x for x in values if _fits(path, x)] or [-1]))
    return path, deepcopy(value)


_BOMB = "a: &a [x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 20)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
_GARBAGE = [
    "training: {lr: 1}\nseed: 1\ntraining: {lr: 2}",
    _BOMB,
    "student: &x {options: *x}",
    "student: {options: " + "[" * 500 + "]" * 500 + "}",
    *("- a\n- b", "3", "", "\0", "a: b: c", "%YAML 9.9\n---\na: 1", "!!python/name:os.system"),
    *("---\n---", "rows: 3", "rows: {a: {x: 1}}", "rows: {1: {seed: 2}}", "rows: []", "base: [1]"),
    *("base: nowhere", "about: 3", "about: {x: 1}", "rows: {a: {1: 2}}", "base: mine", "~: ~"),
    *("methods:\n\t- kd", "? {a: b}\n: c", "seed: 1_0", "seed: 0b11", "seed: +3", "yes: no"),
    *("seed: 2001-01-01", "name: 1e3"),
]


def wishes() -> SearchStrategy[Wish]:
    """Recipes of one to three strange keys, in every form; or files of garbage."""
    few = st.lists(_change(), min_size=1, max_size=2).map(dict)
    letters = st.text("[]{}:,&*!|>'\"#%@- \n\tab1.e~?", max_size=40)
    return st.one_of(
        st.builds(Wish, st.just("dictionary"), few),
        st.builds(Wish, st.just("dictionary"), few),
        st.builds(Wish, st.just("YAML"), few),
        st.builds(Wish, st.just("flags"), few),
        st.builds(Wish, st.just("YAML"), st.just({}), st.sampled_from(_GARBAGE) | letters),
    )


def changed(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[Any, Any]:
    """The keys of a recipe with some replaced, whatever that makes of it."""
    result: dict[Any, Any] = deepcopy(dict(content))
    for path, value in changes.items():
        *parents, last = path.split(".")
        group = result
        for parent in parents:
            if not isinstance(group.get(parent), dict):
                group[parent] = {}
            group = group[parent]
        group[last] = value
    return result


def as_yaml(content: Mapping[Any, Any]) -> str:
    """The content as a user would type it: as YAML, or as the JSON that YAML includes."""
    try:
        return yaml.safe_dump(dict(content), allow_unicode=True)
    except (RecursionError, ValueError):
        return json.dumps(str(content))


def as_words(changes: Mapping[str, Any]) -> list[str]:
    """The changes as flags of the command line."""
    return [word for path, value in changes.items() for word in (f"--{path}", _typed(value))]


def _typed(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
    except (RecursionError, ValueError):
        return "[" * 500
