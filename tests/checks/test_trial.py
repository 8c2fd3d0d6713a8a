"""A trial: every one of a recipe begins where the first did, whatever the ones before it did."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.planted_faults import SMALL
from tests.support.planted_teachers import distillation, signs, spoiled
from tests.support.small_runs import CNN
from understudy.checks import divergence
from understudy.checks.examined import Examined
from understudy.checks.trial import Trial
from understudy.config.recipe import Recipe


def test_other_rates_have_the_teachers_features_of_the_first(tmp_path: Path) -> None:
    recipe = distillation(signs, spoiled(signs, tmp_path, "none")) | {"methods": {"pefd": {}}}
    examined = Examined(Recipe.load(SMALL, recipe), device="cpu")
    examined.trial_at(0.01)
    teacher = examined._bench._experiment.distiller.teacher
    assert teacher is not None
    passes = list[int]()
    teacher.network.module.register_forward_hook(lambda *_: passes.append(1))
    first, second = examined.trial_at(0.01), examined.trial_at(100.0)
    assert not passes
    assert first.losses[0] == second.losses[0]
    assert first.growth < 2 < second.growth


def test_a_working_rate_is_looked_for_in_few_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"methods": {"pefd": {}}, "task": "none", "training.lr": 1000.0}
    normed = {"student": {"name": CNN, "options": {"norm": True}}}
    recipe = distillation(signs, spoiled(signs, tmp_path, "none")) | keys | normed
    examined = Examined(Recipe.load(SMALL, recipe), device="cpu")
    rates = list[float]()
    trial_at = Examined.trial_at

    def noted(self: Examined, lr: float) -> Trial:
        rates.append(lr)
        return trial_at(self, lr)

    monkeypatch.setattr(Examined, "trial_at", noted)
    (finding,) = divergence.check(examined)
    assert "the weights grow to " in finding.message
    assert len(rates) <= 4
    assert finding.fix["training.lr"] in rates


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
