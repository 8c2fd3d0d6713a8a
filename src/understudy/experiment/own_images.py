"""Recipes on the data of a program: the argument `data=` of the public functions."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from understudy.config.recipe import Data, Recipe
from understudy.data.own_data import OwnData
from understudy.data.source import Split
from understudy.data.sources import python

LOGGER = logging.getLogger("understudy")

SOURCE = "python"


@contextmanager
def given(
    recipe: Recipe, data: Any, *, alone: Split = "train", classes: Sequence[str] = ()
) -> Iterator[Recipe]:
    """Yield a recipe whose images are those of a program, or as it is without such.

    Args:
        recipe: The recipe, whose own source is replaced.
        data: Images as `data.own_data` describes them; None for those that the recipe names.
        alone: What a single dataset is.
        classes: Class names to use where the data have none.

    Raises:
        DataError: The data are of no such form.
    """
    if data is None:
        yield recipe
        return
    spec = recipe.data
    if spec.root or spec.source not in (SOURCE, Data().source):
        LOGGER.info(
            f"The images are those of data=, in place of {spec.source} {spec.root}".rstrip() + "."
        )
    own = OwnData(data, alone=alone, workers=spec.workers, classes=classes)
    with python.giving(own):
        yield replace(recipe, data=replace(spec, source=SOURCE, root=""))
