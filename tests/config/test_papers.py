"""The recipes that are shipped, and those of recorded results, say all that could be chosen."""

import json
from functools import cache
from pathlib import Path

from understudy.config.recipe import Recipe
from understudy.config.tables import shipped
from understudy.experiment import defaults

DIGESTS: dict[str, str] = json.loads(Path(__file__).with_name("recorded_digests.json").read_text())
"""Name or file → digest, recorded when all keys of a recipe still had values by default."""


@cache
def recipes() -> dict[str, Recipe]:
    return {name: Recipe.read(name) for name in DIGESTS}


def test_every_recipe_is_what_it_was_before_anything_was_chosen() -> None:
    assert {name: recipe.digest for name, recipe in recipes().items()} == DIGESTS


def test_nothing_is_left_to_be_chosen() -> None:
    assert not {name: keys for name, r in recipes().items() if (keys := defaults.unresolved(r))}


def test_a_recipe_that_is_new_is_looked_at_too() -> None:
    new = shipped().keys() - DIGESTS.keys()
    assert not {name: keys for name in new if (keys := defaults.unresolved(Recipe.read(name)))}


def test_a_table_of_rows_is_a_protocol_and_a_single_recipe_is_not(tmp_path: Path) -> None:
    (tmp_path / "table.yaml").write_text("rows: {one: {student.name: resnet8}}")
    (tmp_path / "single.yaml").write_text("student: resnet8")
    (tmp_path / "based.yaml").write_text("base: _papers\nstudent: {name: resnet8}")
    names = ("table.yaml/one", "single.yaml", "based.yaml")
    table, single, based = (Recipe.load(str(tmp_path / name)) for name in names)
    assert defaults.unresolved(single) == defaults.OPEN
    assert table.digest == based.digest != single.digest
