"""Runs on mixed images: interrupted, with every kind of method, and what is refused."""

import math
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.small_runs import Stop, outcome
from understudy.config.recipe import Recipe
from understudy.distillation.wire import check_methods
from understudy.errors import Interrupted, RecipeError
from understudy.experiment import bank_build
from understudy.experiment.train import train

MIXED: dict[str, Any] = {
    "data.mixup": 0.8,
    "data.cutmix": 1.0,
    "training.label_smoothing": 0.1,
    "methods": {"nd": {}, "lshfm": {"hashes": 64}, "kd": {}, "pefd": {}},
}


@pytest.fixture
def wanted(tiny: Recipe) -> Recipe:
    return Recipe.load(tiny, MIXED)


def changed(wanted: Recipe, **keys: Any) -> Recipe:
    return Recipe.load(wanted, {key.replace("__", "."): x for key, x in keys.items()})


def test_an_interrupted_run_continues_as_if_nothing_had_happened(
    wanted: Recipe, tmp_path: Path
) -> None:
    whole = train(wanted, out=tmp_path / "whole")
    assert all(math.isfinite(x) for line in whole.history for x in line["losses"].values())
    with pytest.raises(Interrupted):
        train(wanted, out=tmp_path / "parts", callback=Stop(9, signal.SIGTERM))
    assert outcome(train(wanted, out=tmp_path / "parts", resume=True)) == outcome(whole)
    # Mixing changes what is learned.
    plain = train(changed(wanted, data__mixup=0.0, data__cutmix=0.0), out=tmp_path / "plain")
    assert outcome(plain) != outcome(whole)


def test_a_bank_serves_no_mixed_images(wanted: Recipe, tmp_path: Path) -> None:
    banked = changed(wanted, bank__path=str(tmp_path / "bank"))
    with pytest.raises(RecipeError, match="cannot serve mixed ones: leave bank"):
        train(banked, out=tmp_path / "run")
    with pytest.raises(RecipeError, match="cannot serve mixed ones"):
        bank_build.fill(banked)


@pytest.mark.parametrize("name", ["crd", "dkd", "letkd"])
def test_methods_that_need_one_class_are_refused(name: str, wanted: Recipe, tmp_path: Path) -> None:
    mixed = changed(wanted, methods={name: {}})
    with pytest.raises(RecipeError, match=f"'{name}' needs the one class of an image"):
        check_methods(mixed)
    with pytest.raises(RecipeError, match=f"'{name}' needs the one class of an image"):
        train(mixed, out=tmp_path / "run")
