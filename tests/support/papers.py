"""Keys as the papers' recipes have them, with nothing left to be chosen."""

from dataclasses import replace
from typing import Any

from understudy.config.recipe import Recipe, Training
from understudy.config.tables import PAPERS, merged, read

KEYS: dict[str, Any] = read(PAPERS)


def as_in_papers(**keys: Any) -> Training:
    """How to train, as in the papers but for some keys."""
    return replace(Recipe.read(PAPERS).training, **keys)


def over_papers(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe as a dictionary, with what it does not say as in the papers."""
    return merged(KEYS, recipe)
