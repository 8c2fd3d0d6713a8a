"""Several teachers in a recipe: where their keys are, and which recipes are refused."""

from pathlib import Path
from typing import Any

import pytest

from understudy.cli.doctor import with_methods
from understudy.comparison.arms import named as arms_named
from understudy.config.naming import named
from understudy.config.recipe import Recipe
from understudy.errors import NetworkError, RecipeError

SEVERAL: dict[str, Any] = {
    "student": "resnet8",
    "teachers": {
        "dino": {"name": "resnet20", "weights": "w", "methods": {"lshfm": {"weight": 2}, "kd": {}}},
        "siglip": {"name": "wrn_16_2", "weights": "w", "size": 40, "methods": {"pefd": None}},
    },
}


def test_every_key_is_kept_in_yaml_and_a_flag(tmp_path: Path) -> None:
    (tmp_path / "several.yaml").write_text(Recipe.from_dict(SEVERAL).to_yaml())
    loaded = Recipe.load(
        tmp_path / "several.yaml", {"teachers.siglip.mean": [0.1], "teachers.dino.bank.path": "b"}
    )
    dino, siglip = loaded.teachers["dino"], loaded.teachers["siglip"]
    assert (siglip.size, siglip.mean, siglip.methods) == (40, (0.1,), {"pefd": {}})
    assert (dino.bank.path, dino.methods["lshfm"]) == ("b", {"weight": 2})
    assert list(loaded.each_method) == ["dino/lshfm", "dino/kd", "siglip/pefd"]


def test_a_teacher_alone_is_a_recipe_with_one() -> None:
    alone = Recipe.from_dict(SEVERAL).alone("siglip")
    assert (alone.teacher.name, alone.teacher.size) == ("wrn_16_2", 40)
    assert (alone.methods, alone.teachers) == ({"pefd": {}}, {})
    assert Recipe.load(alone) == alone  # which no rule refuses


def test_the_digest_counts_what_changes_the_result_alone() -> None:
    recipe = Recipe.from_dict(SEVERAL)
    same = {"teachers.dino.bank.path": "b", "teachers.dino.methods.lshfm.keep": "k"}
    assert Recipe.load(recipe, same).digest == recipe.digest
    changed = {"dino.size": 40, "siglip.methods.pefd.weight": 2, "dino.bank.dtype": "int8"}
    for key, value in changed.items():
        assert Recipe.load(recipe, {f"teachers.{key}": value}).digest != recipe.digest
    # Keys at their default do not count, so that a key of a later version changes nothing.
    assert recipe.digest == "1cd2e5b0e2a7"


def test_the_name_of_a_run_has_those_of_the_teachers() -> None:
    recipe = Recipe.from_dict(SEVERAL)
    assert named(recipe).name == "resnet8_from_dino+siglip_lshfm+kd+pefd"
    assert named(recipe, "comparison").name == "resnet8_from_dino+siglip_compared"


def test_arms_are_all_teachers_together_and_each_alone() -> None:
    recipe = Recipe.from_dict(SEVERAL)
    arms = arms_named(recipe, ())
    labels = {name: list(arm.each_method) for name, arm in arms.items()}
    assert labels == {
        "control": [],
        "dino+siglip": ["dino/lshfm", "dino/kd", "siglip/pefd"],
        "dino": ["dino/lshfm", "dino/kd"],
        "siglip": ["siglip/pefd"],
    }
    # All teachers stay in all arms, so that fidelity is measured to the same ones.
    assert all(arm.teachers.keys() == recipe.teachers.keys() for arm in arms.values())
    assert list(arms_named(recipe, ["siglip"])) == ["control", "siglip"]
    with pytest.raises(RecipeError, match=r"'lshfm' is no teacher of the recipe.*dino, siglip"):
        arms_named(recipe, ["lshfm"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher.name": "resnet20"}, r"also sets 'teacher'.*set teachers\.dino\.name"),
        ({"methods.kd": {}}, r"also sets 'methods'.*set teachers\.dino\.methods"),
        ({"bank.path": "b"}, r"also sets 'bank'.*set teachers\.dino\.bank"),
        ({"task": "detection"}, "locations where the student looks.*only one teacher"),
        ({"teachers.task": {"name": "resnet20"}}, "'task', which is the loss on labels"),
        ({"teachers": {"a/b": {"name": "resnet20"}}}, "must be letters, digits, _ and -"),
        ({"teachers.third": {"size": 32}}, r"'third' names no network: give teachers\.third\.name"),
        (
            {"teachers.dino.bank.path": "b", "teachers.siglip.bank.path": "b"},
            "'dino' and 'siglip' have the same bank.path",
        ),
        ({"teachers.dino.sise": 3}, r"Unknown key 'teachers\.dino\.sise'.*size"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Recipe.load(SEVERAL, changes)


def test_methods_of_no_teacher_and_teachers_without_weights_are_refused() -> None:
    recipe = Recipe.from_dict(SEVERAL)
    with pytest.raises(RecipeError, match=r"say which, such as by --teachers\.dino\.methods\.kd"):
        with_methods(recipe, ["kd"])
    with pytest.raises(NetworkError, match=r"teach noise: give --teachers\.siglip\.weights"):
        arms_named(Recipe.load(recipe, {"teachers.siglip.weights": ""}), ())
    with pytest.raises(RecipeError, match=r"Unknown key 'teachers\.dino\.methods\.kd\.heat'"):
        arms_named(Recipe.load(recipe, {"teachers.dino.methods.kd": {"heat": 3}}), ())


def test_a_file_of_a_teacher_outside_the_working_folder_is_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    name = f"{tmp_path / 'other.py'}:factory"
    path = tmp_path / "several.yaml"
    path.write_text(Recipe.load(SEVERAL, {"teachers.dino.name": name}).to_yaml())
    with pytest.raises(NetworkError, match=r"by --teachers\.dino\.name"):
        Recipe.load(path)
    assert Recipe.load(path, {"teachers.dino.name": name}).teachers["dino"].name == name
