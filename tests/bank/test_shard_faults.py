"""What goes wrong where banks in shards are built and read, and what is said of it."""

from pathlib import Path

import pytest

from understudy.config.recipe import Recipe
from understudy.errors import RecipeError
from understudy.experiment.bank_shards import fill_shards


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "cache"))


def test_a_recipe_without_a_bank_makes_none_in_the_working_directory(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="names no bank"):
        fill_shards(tiny)
    assert not list(tmp_path.iterdir())
