"""Names of experiments after what they are."""

from pathlib import Path
from typing import Any

import pytest

from understudy.config.naming import named
from understudy.config.recipe import Recipe

PAIR = {"student": "resnet18", "teacher": "resnet50"}


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({"student": "resnet8"}, "resnet8"),
        ({**PAIR, "methods": {"lshfm": {}}}, "resnet18_from_resnet50_lshfm"),
        ({**PAIR, "methods": {"kd": {}, "nd": {}}}, "resnet18_from_resnet50_kd+nd"),
        (PAIR, "resnet18"),
        ({**PAIR, "name": "mine", "methods": {"kd": {}}}, "mine"),
        ({"student": "timm:mobilenetv3_small_100.lamb_in1k"}, "mobilenetv3_small_100"),
        ({"student": "nets/small.py:factory"}, "factory"),
        ({"student": "hf-hub:owner/some-net"}, "some-net"),
        ({}, "student"),
    ],
)
def test_a_run(keys: dict[str, Any], name: str) -> None:
    assert named(Recipe.from_dict(keys)).name == name


def test_a_comparison_and_a_search_do_not_share_the_directory_of_a_run() -> None:
    recipe = Recipe.from_dict({**PAIR, "methods": {"kd": {}}})
    names = {named(recipe).name, named(recipe, "comparison").name, named(recipe, "search").name}
    assert names == {
        "resnet18_from_resnet50_kd", "resnet18_from_resnet50_compared",
        "resnet18_from_resnet50_tuned",
    }  # fmt: skip


def test_a_teacher_without_a_name_is_called_after_its_run(tmp_path: Path) -> None:
    keys = {"student": "resnet8", "methods": {"kd": {}}}
    of_file = Recipe.from_dict({**keys, "teacher": {"weights": "big_net.safetensors"}})
    assert named(of_file).name == "resnet8_from_big_net_kd"
    (tmp_path / "recipe.yaml").write_text(Recipe.from_dict({"student": "wrn_40_2"}).to_yaml())
    of_run = Recipe.from_dict({**keys, "teacher": {"weights": str(tmp_path)}})
    assert named(of_run).name == "resnet8_from_wrn_40_2_kd"


def test_the_name_changes_no_digest() -> None:
    recipe = Recipe.from_dict(PAIR)
    assert named(recipe).digest == recipe.digest
