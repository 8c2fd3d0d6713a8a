"""Every number of a recipe and of a method has a range, which is checked wherever it is given."""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

import numpy as np
import pytest

from understudy import methods
from understudy.config.limits import AsPath, Range
from understudy.config.recipe import Recipe
from understudy.config.schema import bare, convert, hints_of, leaves, limits
from understudy.distillation.weights import Weight, as_weight
from understudy.distillation.wire import check_methods
from understudy.errors import RecipeError

NAN, INF = float("nan"), float("inf")

WITHOUT_RANGE = {"student.mean", "teacher.mean"}
"""Numbers that may be negative, and as large as they like."""


def numbers(hint: Any) -> Iterator[tuple[type, Range | None]]:
    """Every number in a type, with its range."""
    if bare(hint) in (int, float):
        ranges = [limit for limit in get_args(hint)[1:] if isinstance(limit, Range)]
        yield bare(hint), ranges[0] if ranges else None
        return
    for inner in get_args(hint):
        yield from numbers(inner)


KEYS = {path: hint for path, hint, _ in leaves(Recipe) if list(numbers(hint))}
HYPER_PARAMETERS = {
    f"{name}.{key}": hints_of(methods.find(name).__init__)[key]
    for name in methods.names()
    for key in methods.hyper_parameters(methods.find(name))
    if list(numbers(hints_of(methods.find(name).__init__)[key]))
}


def outside(hint: Any) -> Iterator[Any]:
    """Values that a number does not have, whatever it means."""
    yield from (NAN, INF, -INF, True, "3", 10**400, -(10**400), 1e300, [[1]], {"a": 1})
    for kind, limit in numbers(hint):
        if kind is int:
            yield from (10**20, -(10**20), 0.5)
        if limit is None:
            continue
        if limit.least is not None:
            yield kind(limit.least - 1)
        if limit.most is not None:
            yield kind(limit.most + 1)
        if limit.above is not None:
            yield kind(limit.above)
            yield kind(limit.above - 1)
        if limit.below is not None:
            yield kind(limit.below)


def in_its_list(hint: Any, value: Any) -> Any:
    """A value in a list, where the key is one of so many."""
    if get_origin(hint) is tuple or any(get_origin(x) is tuple for x in get_args(hint)):
        length = 3 if Ellipsis not in get_args(hint) and get_origin(hint) is tuple else 1
        return [value] * length
    return value


@pytest.mark.parametrize("path", KEYS)
def test_a_key_out_of_its_range_is_refused(path: str) -> None:
    for value in outside(KEYS[path]):
        with pytest.raises(RecipeError, match=path) as error:
            Recipe.load({}, {path: in_its_list(KEYS[path], value)})
        assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", HYPER_PARAMETERS)
def test_a_hyper_parameter_out_of_its_range_is_refused_in_a_recipe(name: str) -> None:
    method, key = name.split(".")
    hint = HYPER_PARAMETERS[name]
    for value in outside(hint):
        with pytest.raises(RecipeError, match=f"'methods.{method}.{key}"):
            check_methods(Recipe.load({"methods": {method: {key: in_its_list(hint, value)}}}))


@pytest.mark.parametrize("name", HYPER_PARAMETERS)
def test_a_hyper_parameter_out_of_its_range_is_refused_in_python(name: str) -> None:
    method, key = name.split(".")
    kind, hint = methods.find(method), HYPER_PARAMETERS[name]
    for value in outside(hint):
        with pytest.raises(RecipeError, match=f"'{kind.__name__}.{key}"):
            kind(None, None, **{key: in_its_list(hint, value)})  # type: ignore[call-arg]
        if key in hints_of(kind.extend):
            with pytest.raises(RecipeError, match=f"'{kind.__name__}.{key}"):
                kind.extend(None, None, **{key: in_its_list(hint, value)})  # type: ignore[arg-type]


def test_every_number_has_a_range() -> None:
    declared = KEYS | HYPER_PARAMETERS
    without = {
        name for name, hint in declared.items() if any(limit is None for _, limit in numbers(hint))
    }
    assert without == WITHOUT_RANGE


@pytest.mark.parametrize(
    "value",
    [
        *(NAN, INF, -1, "2", True, None, [1], 1e300),
        *({"warmup_epochs": 1}, {"value": 1, "warmup_epochs": NAN}, {"value": NAN}),
        *({"value": 1, "warmup_epochs": -1}, {"value": 1, "warmup_counts_from": 2}),
        *({"value": 1, "warm": 1}, {"value": {"value": 1}}, Weight(NAN), Weight(1, NAN)),
    ],
)
def test_a_weight_is_a_number_of_at_least_0(value: Any) -> None:
    with pytest.raises(RecipeError, match=r"methods\.kd\.weight"):
        as_weight("methods.kd.weight", value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"seed": 10**20}, "from 0 to 4294967295|at most 4294967295"),
        ({"training": {"lr": "0.1"}}, "write it as 0.1, without quotes"),
        ({"training": {"epochs": "010"}}, "write it as 10, without quotes"),
        ({"name": 3}, "it must be text; write it in quotes"),
        ({3: 4}, "The key 3 is no text"),
        ({"methods": {True: {}}}, "The key True in 'methods' is no text"),
        ({"methods": {"kd": {5: 1}}}, "The key 5 in 'methods.kd' is no text"),
        ({"student": {"options": {None: 1}}}, "The key None in 'student.options'"),
        ({"student": {"options": {"act": object()}}}, "'student.options.act' is .* no form"),
        ({"name": "a" * 300}, "too long to name a file"),
        ({"name": "ä" * 128}, "too long to name a file"),
        ({"data": {"root": "x" * 5000}}, "too long to name a file"),
        ({"data": {"root": "a\nb"}}, "control character"),
        ({"name": "a\0b"}, "a character that no file can hold"),
        ({"name": "\ud800"}, "a character that no file can hold"),
        ({"student": {"name": "a\0"}}, "a character that no file can hold"),
        ({"name": "."}, "names no folder below"),
        ({"name": "/tmp/x"}, "names no folder below"),
        ({"name": "a/../../b"}, "names no folder below"),
        ({"training": {"nesterov": True, "momentum": 0}}, "nesterov needs momentum"),
        ({"training": {"nesterov": True, "optimizer": "adamw"}}, "nesterov is for the optimizer"),
        ({"training": {"milestones": [3, 2]}}, r"must ascend, each once: \[2, 3\]"),
        ({"training": {"milestones": [3, 3]}}, r"must ascend, each once: \[3\]"),
        ({"training": {"asymmetry": [1.0, 2.0]}}, "a list of 3"),
        ({"training": {"asymmetry": [0, 4, 1]}}, r"asymmetry\[2\].*at least 0 and below 1"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(content: Any, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as error:
        Recipe.from_dict(content)
    assert str(error.value).endswith((".", ".)"))


def test_a_recipe_made_in_python_is_checked_as_well() -> None:
    from understudy.config.recipe import Training

    with pytest.raises(RecipeError, match=r"training\.lr"):
        Recipe.load(Recipe(training=Training(lr=NAN)))


def test_nesting_and_circles_are_refused() -> None:
    deep: dict[str, Any] = {}
    inner = deep
    for _ in range(500):
        inner["options"] = {}
        inner = inner["options"]
    circle: dict[str, Any] = {}
    circle["student"] = {"options": circle}
    wide: Any = [0] * 10
    for _ in range(12):
        wide = [wide] * 10
    for content in ({"student": {"options": deep}}, circle):
        with pytest.raises(RecipeError, match="more than 50 levels deep"):
            Recipe.from_dict(content)
    with pytest.raises(RecipeError, match="more than 100,000 values"):
        Recipe.from_dict({"student": {"options": {"a": wide}}})


def test_numbers_of_numpy_are_numbers() -> None:
    made = Recipe.from_dict(
        {"seed": np.int64(3), "training": {"lr": np.float32(0.5)}, "methods": {"kd": {"weight": 2}}}
    )
    assert (made.seed, made.training.lr) == (3, 0.5)
    assert (type(made.seed), type(made.training.lr)) == (int, float)


def test_ranges_say_what_they_allow() -> None:
    assert limits(KEYS["training.momentum"]) == "at least 0 and below 1"
    assert limits(KEYS["training.clip"]) == "above 0"
    assert limits(KEYS["data.jitter"]) == "from 0 to 10"
    assert limits(hints_of(methods.find("kd").__init__)["standardise"]) == ""
    assert str(AsPath()) == ""


def test_a_type_of_several_reports_the_error_of_the_likely_one() -> None:
    hint = hints_of(methods.find("pefd").__init__)["depth"]
    assert convert(hint, [1, 2], "depth") == (1, 2)
    with pytest.raises(RecipeError, match=r"'depth\[1\]' is 0; it must be from 1 to 100"):
        convert(hint, [1, 0], "depth")
    with pytest.raises(RecipeError, match=r"'depth' is 0; it must be from 1 to 100"):
        convert(hint, 0, "depth")
