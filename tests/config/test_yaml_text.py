"""YAML is read strictly: nothing is lost, and nothing grows."""

from pathlib import Path
from typing import Any

import pytest

from understudy.config.recipe import Recipe
from understudy.config.yaml_text import from_yaml
from understudy.errors import RecipeError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training: {lr: 1}\nseed: 1\ntraining: {lr: 2}", "'training' stands .* 1 and 3"),
        ("training:\n  lr: 1\n  lr: 2", "'lr' stands in one group twice, in lines 2 and 3"),
        ("methods: {kd: {}, kd: {}}", "'kd' stands in one group twice"),
        (BOMB, "aliases of more than 100,000 values"),
        ("a: &x {b: *x}", "an alias inside of itself"),
        ("student: " + "[" * 500 + "]" * 500, "more than 100 levels"),
        ("a: " + "{b: " * 500 + "}" * 500, "more than 100 levels"),
        ("training: {lr: [}", "is not YAML"),
        ("x: !!python/object/apply:os.system [exit]", "could not determine a constructor"),
        ("seed: 2020-13-45", "month must be in 1..12"),
        ("seed: " + "9" * 5000, "is not YAML"),
        ("? [1, 2]\n: 3", "unhashable key"),
        ('name: "a\\0"', "a character that no file can hold"),
    ],
)
def test_a_file_is_refused_in_a_sentence(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=words) as error:
        Recipe.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-3", 0.001), ("1.5e3", 1500.0), (".5E+3", 500.0), ("-2e2", -200.0), ("1_000", 1000)),
        *(("010", "010"), ("1:30", "1:30"), ("0x10", 16), ("0", 0), ("0.5", 0.5), (".inf", 1e999)),
    ],
)
def test_numbers_are_read_as_one_expects(text: str, value: Any) -> None:
    assert from_yaml(text) == value


def test_aliases_and_merged_keys_are_read() -> None:
    text = "base: &b {lr: 1, batch: 2}\nmine: {<<: *b, lr: 3}\nother: *b\nlast: {<<: *b}"
    content = from_yaml(text)
    assert content["mine"] == {"lr": 3, "batch": 2}
    assert content["other"] == content["last"] == {"lr": 1, "batch": 2}
