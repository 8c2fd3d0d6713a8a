"""Recipes: read and written without loss, identified by a digest, refused in words."""

import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from tests.support.shipped_recipes import by_file
from understudy import data, models, tasks
from understudy.config import recipe, tables
from understudy.config.recipe import NOT_IN_DIGEST, Recipe
from understudy.config.schema import bare, documentation, leaves, may_be_auto
from understudy.config.yaml_text import from_yaml
from understudy.distillation.wire import check_methods
from understudy.errors import NameNotFound, RecipeError
from understudy.models import detection

FULL: dict[str, Any] = {
    "name": "full",
    "task": "classification",
    "data": {"source": "folder", "root": "photos", "size": 64, "validation": 0.1},
    "student": {"name": "resnet8x4", "options": {"width": 2}, "mean": [0.5, 0.5, 0.5]},
    "teacher": {"name": "resnet32x4", "weights": "runs/teacher", "taps": {"neck": "fc"}},
    "methods": {"lshfm": {"weight": {"value": 6, "warmup_epochs": 2}}, "kd": {"temperature": 2.0}},
    "training": {"lr": 0.1, "milestones": [3, 5], "clip": 1.0, "trackers": ["tensorboard"]},
}


@pytest.mark.parametrize("content", [{}, FULL], ids=["empty", "full"])
def test_yaml_gives_the_same_recipe_back(content: dict[str, Any], tmp_path: Path) -> None:
    first = Recipe.from_dict(content)
    path = tmp_path / "recipe.yaml"
    path.write_text(first.to_yaml())
    assert Recipe.load(path) == first
    assert Recipe.load(path).digest == first.digest
    assert Recipe.from_dict(first.to_dict()) == first


def test_every_key_is_written_out() -> None:
    written = Recipe.from_dict(from_yaml(Recipe().to_yaml())).flat()
    assert set(written) == {path for path, _, _ in leaves(Recipe)}


SEVERAL: dict[str, Any] = {
    "teachers": {"dino": {"name": "resnet20"}},
    "methods": {"kd": {}},
    "options": {"width": 2},
    "optimizer_options": {"eps": 1e-6},
    "taps": {"neck": "fc"},
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "milestones": [3],
    "asymmetry": [1.0, 2.0, 0.0],
    "features": ["logits"],
    "trackers": ["tensorboard"],
    "only": ["fc.*"],
    "classes": ["cat", "dog"],
    "transforms": ["RandAugment"],
    "class_weights": [1.0, 2.0],
}
"""Values of the keys that hold several."""


def another(path: str, hint: Any, default: Any) -> Any:
    """A value of the same type, but another."""
    name = path.rpartition(".")[2]
    if name in SEVERAL:
        return SEVERAL[name]
    hint = bare(hint) if may_be_auto(hint) else hint
    if get_origin(hint) is Literal:
        return next(option for option in get_args(hint) if option != default)
    kinds = {bare(kind) for kind in (hint, *get_args(hint))}
    if bool in kinds:
        return not default
    return "another" if bare(hint) is str else 7 if int in kinds else 0.7


LEAVES = {path: (hint, default) for path, hint, default in leaves(Recipe)}


@pytest.mark.parametrize("path", LEAVES)
def test_the_digest_changes_with_every_key_but_name_and_place(path: str) -> None:
    changed = Recipe.load({}, {path: another(path, *LEAVES[path])})
    assert changed != Recipe()
    assert (changed.digest == Recipe().digest) == (path in NOT_IN_DIGEST)


def test_the_digest_does_not_know_where_a_teacher_was_measured() -> None:
    plain, kept, other = (
        Recipe.from_dict({"methods": {"words": {"method": "letkd", **given}}})
        for given in ({}, {"keep": "some/folder"}, {"words": 16})
    )
    assert kept.digest == plain.digest != other.digest


def test_the_digest_is_stable() -> None:
    code = "from understudy.config.recipe import Recipe; print(Recipe().digest)"
    for seed in ("0", "1"):
        command = [sys.executable, "-c", code]
        environment = {"PYTHONHASHSEED": seed}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.strip() == Recipe().digest


def test_the_order_of_keys_does_not_matter() -> None:
    turned = dict(reversed(FULL.items()))
    assert Recipe.from_dict(turned).digest == Recipe.from_dict(FULL).digest


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"trainin": {}}, r"'trainin' \(did you mean 'training'\?\)"),
        ({"training": {"epoch": 3}}, r"'training.epoch' \(did you mean 'epochs'\?\)"),
        ({"student": {"weigths": "x"}}, r"'student.weigths' \(did you mean 'weights'\?\)"),
        ({"training": {"epochs": "3"}}, "'training.epochs' is '3'; it must be a whole number"),
        ({"training": {"epochs": 3.5}}, "'training.epochs' is 3.5; it must be a whole number"),
        ({"training": {"epochs": True}}, "'training.epochs' is True; it must be a whole number"),
        ({"training": {"compile": 1}}, "'training.compile' is 1; it must be true or false"),
        ({"training": {"lr": "fast"}}, "'training.lr' is 'fast'; it must be a number"),
        ({"training": {"milestones": 3}}, "'training.milestones' is 3; it must be a list"),
        ({"training": {"milestones": ["a"]}}, r"'training.milestones\[0\]' is 'a'"),
        ({"data": {"size": "big"}}, "'data.size' is 'big'; it must be a whole number"),
        ({"data": {"root": None}}, "'data.root' is None; it must be text"),
        ({"data": "photos"}, "'data' must be a group of keys, not 'photos'"),
        ({"methods": ["kd"]}, r"'methods' is \['kd'\]; it must be a group of keys"),
        ({"methods": {"kd": 2}}, "'methods.kd' is 2; it must be a group of keys"),
        ({"name": from_yaml("2026-01-01")}, "'name' is .*; it must be text"),
        ({"task": "segmentation"}, "it can be: classification, multilabel, detection, none"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_dotted_path(
    content: dict[str, Any], words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        Recipe.from_dict(content)


def test_overrides_replace_single_keys() -> None:
    made = Recipe.load(FULL, {"training.lr": 0.2, "methods.kd.weight": 3, "data.size": None})
    assert (made.training.lr, made.training.clip, made.data.size) == (0.2, 1.0, None)
    assert made.methods["kd"] == {"temperature": 2.0, "weight": 3}
    assert FULL["methods"]["kd"] == {"temperature": 2.0}


def test_an_override_below_a_value_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"'seed.x' cannot be set"):
        Recipe.load({"seed": 1}, {"seed.x": 2})


@pytest.mark.parametrize(
    ("text", "value"), [("5e-4", 5e-4), ("1e3", 1e3), ("3", 3), ("0.5", 0.5), ("e4", "e4")]
)
def test_numbers_may_be_written_as_in_python(text: str, value: Any) -> None:
    assert from_yaml(text) == value


def test_nothing_behind_a_method_means_its_defaults() -> None:
    assert Recipe.from_dict(from_yaml("methods:\n  kd:")).methods == {"kd": {}}


def test_a_network_may_be_just_its_name() -> None:
    assert Recipe.from_dict({"student": "resnet8"}).student == recipe.Student(name="resnet8")


@pytest.mark.parametrize(
    ("text", "words"), [("a: [", "is not YAML"), ("", "holds no keys"), ("- a", "holds no keys")]
)
def test_a_file_that_is_no_recipe(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=words) as error:
        Recipe.load(path)
    assert "\n" not in str(error.value)


def test_a_recipe_goes_by_the_name_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 3")
    assert Recipe.load(path).name == "mine"
    path.write_text("name: other")
    assert Recipe.load(path).name == "other"


def test_a_recipe_that_does_not_exist() -> None:
    with pytest.raises(NameNotFound, match="A recipe may also be a file"):
        Recipe.load("no/such")


def test_every_key_has_its_sentence() -> None:
    written = documentation(Recipe)
    assert not [path for path, _, _ in leaves(Recipe) if not written.get(path)]


def test_every_dataclass_is_frozen() -> None:
    parts = [Recipe, *(type(getattr(Recipe(), f.name)) for f in fields(Recipe))]
    assert all(part.__dataclass_params__.frozen for part in parts if is_dataclass(part))


@pytest.mark.parametrize("file", by_file())
def test_shipped_recipes_name_what_exists(file: str) -> None:
    for name in by_file()[file]:
        shipped = Recipe.load(name)
        assert shipped.name in (name, name.replace("/", "_"), Path(name).name)
        check_methods(shipped)
        assert shipped.data.source in data.names(), name
        assert shipped.task in tasks.names(), name
        known = detection.names() if shipped.task == "detection" else models.names()
        for network in (shipped.student, shipped.teacher):
            assert not network.name or ":" in network.name or network.name in known, name
        assert shipped.student.name, name


def test_the_recipes_of_the_demonstration_are_shipped() -> None:
    from understudy.comparison.demo import RECIPES

    for task, names in RECIPES.items():
        assert set(names) <= set(tables.shipped())
        assert {Recipe.load(name).task for name in names} == {task}


@pytest.mark.parametrize(
    "overrides",
    [
        {"training.lr": 0.5, "student.size": 8, "methods": {"kd": {}}},
        {"training": {"lr": 0.5}, "student": {"size": 8}, "methods": {"kd": {}}},
    ],
    ids=["dotted", "nested"],
)
def test_overrides_change_their_keys_and_no_others(overrides: dict[str, Any]) -> None:
    before = Recipe.from_dict(FULL)
    after = Recipe.load(before, overrides)
    changed = {"training.lr": 0.5, "student.size": 8}
    kept = {k: v for k, v in before.flat().items() if not k.startswith("methods.")}
    assert after.flat() == {**kept, **changed, "methods.kd": {}}
    assert Recipe.load(FULL, overrides) == after


def test_a_network_as_a_string_replaces_all_its_keys() -> None:
    other = Recipe.load(FULL, {"student": "resnet8"})
    assert other.student == recipe.Student("resnet8")
    assert Recipe.load({"student": "resnet8"}, {"student.size": 8}).student.size == 8


@pytest.mark.parametrize("overrides", [{"trainign": {"lr": 1.0}}, {"training": {"rl": 1.0}}])
def test_an_unknown_key_of_overrides_is_refused(overrides: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"Unknown key '(trainign|training\.rl)'"):
        Recipe.load("fashion/demo", overrides)
