"""Labels of methods are names of losses, modules and folders: what is none of them is refused."""

from typing import Any

import pytest

from tests.distillation.test_wire_weights import EXAMPLE, pair
from understudy.comparison.arms import named
from understudy.config.recipe import Recipe
from understudy.distillation.wire import check_methods, wire
from understudy.errors import OutOfMemory, RecipeError

LABELS = [
    *("task", "total", "keys", "items", "values", "pop", "forward", "training", "train", "type"),
    *("a/b", "a.b", "a\\b", "a+b", "", " a", "a\0", "a\n", "..", "x" * 101, "\ud800", "_modules"),
]


@pytest.mark.parametrize("label", LABELS)
def test_a_label_that_is_taken_or_no_name_is_refused(label: str) -> None:
    content = {"methods": {label: {"method": "kd"}}}
    with pytest.raises(RecipeError, match=r"label|no file can hold"):
        check_methods(Recipe.from_dict(content))
    with pytest.raises(RecipeError, match="cannot have the label"):
        wire(*pair(), {label: {"method": "kd"}}, example=EXAMPLE)


def test_a_label_is_text() -> None:
    methods: Any = {5: 1}
    with pytest.raises(RecipeError, match="which is no text"):
        wire(*pair(), methods, example=EXAMPLE)


@pytest.mark.parametrize("label", ["kd", "mine", "[x]", "a b", "ä", "a-b_c", "tests:Cls", "1"])
def test_other_labels_are_taken(label: str) -> None:
    distiller = wire(*pair(), {label: {"method": "kd"}}, example=EXAMPLE)
    assert distiller.weights[label].value == 0.9


@pytest.mark.parametrize("method", [5, True, None, ["kd"], {"a": 1}])
def test_a_method_is_named_by_text(method: Any) -> None:
    content = {"methods": {"mine": {"method": method}}}
    with pytest.raises(RecipeError, match=r"'methods\.mine\.method' is"):
        check_methods(Recipe.from_dict(content))


@pytest.mark.parametrize(
    ("arm", "words"), [("control", "arm without"), ("bank", "folder of the bank"), ("k" * 300, "k")]
)
def test_an_arm_has_a_folder_of_its_own(arm: str, words: str) -> None:
    recipe = Recipe.from_dict({"methods": {arm: {"method": "kd"}}, "teacher": "resnet8"})
    with pytest.raises(RecipeError, match=words):
        named(recipe, [arm])


@pytest.mark.parametrize("seed", [-1, 10**20, 1.5, True])
def test_a_seed_of_wire_is_one_of_a_recipe(seed: Any) -> None:
    with pytest.raises(RecipeError, match="'seed' is"):
        wire(*pair(), {"kd": 1}, example=EXAMPLE, seed=seed)


def test_a_method_that_fits_into_no_memory_is_refused() -> None:
    with pytest.raises(OutOfMemory, match="The method 'semckd' does not fit into memory"):
        wire(*pair(), {"semckd": {"neighbours": 2**32 - 1}}, example=EXAMPLE)
