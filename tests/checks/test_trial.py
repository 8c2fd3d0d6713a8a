"""A trial: every one of a recipe begins where the first did, whatever the ones before it did."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.planted_faults import SMALL
from tests.support.planted_teachers import distillation, signs, spoiled
from understudy.checks.examined import Examined
from understudy.config.recipe import Recipe


@pytest.mark.parametrize(
    "keys",
    [
        {"methods": {"pefd": {}}},
        {"methods": {"crd": {"negatives": 64}}},
        {"methods": {"kd": {}}, "training.precision": "bf16"},
        {"methods": {"kd": {}}, "training.ema": 0.9, "training.clip": 1.0},
    ],
    ids=["pefd", "crd", "bf16", "average"],
)
def test_a_trial_begins_as_the_first(keys: dict[str, Any], tmp_path: Path) -> None:
    recipe = distillation(signs, spoiled(signs, tmp_path, "none")) | keys
    examined = Examined(Recipe.load(SMALL, recipe), device="cpu")
    rate = examined.resolved.training.lr
    first, other = examined.trial, examined.trial_at(1000 * rate)
    assert other.losses[0] == first.losses[0] != first.losses[1]
    assert other.losses[:2] != first.losses[:2]
    again = examined.trial_at(rate)
    assert again.losses == first.losses[: len(again.losses)]
    assert again.input_seconds is None
