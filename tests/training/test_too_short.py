"""Keys that a run is too short for are named when it begins."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.support.papers import as_in_papers, over_papers
from understudy.config.recipe import Recipe
from understudy.distillation.weights import Weight, as_weight
from understudy.experiment.train import train
from understudy.training.too_short import unreached

EVEN = Weight(1.0)


@pytest.mark.parametrize(
    ("keys", "weight", "sentence"),
    [
        ({"epochs": 4}, EVEN, "never falls: the milestones 150, 180, 210 are not before the end"),
        ({"epochs": 150}, EVEN, "never falls"),
        ({"epochs": 200}, EVEN, "does not fall at 210, which is not before the end of 200 epochs"),
        ({"epochs": 4, "schedule": "cosine", "warmup_epochs": 4.0}, EVEN, "never reaches"),
        ({"epochs": 4, "schedule": "linear", "warmup_epochs": 5.0}, EVEN, "rises over 5 epochs"),
        ({"epochs": 4, "schedule": "constant"}, Weight(2.0, 20.0), "reaches 0.3 of 2"),
        ({"epochs": 4, "schedule": "cosine", "ema": 0.9999}, EVEN, "10 %|99 % of the student"),
        ({"epochs": 4, "schedule": "cosine", "evaluate_every": 5}, EVEN, "last epoch alone"),
    ],
)
def test_each_key_has_its_sentence(keys: dict[str, Any], weight: Weight, sentence: str) -> None:
    (said,) = unreached(as_in_papers(**keys), {"kd": weight}, 25)
    assert any(part in said.message for part in sentence.split("|"))
    recipe = Recipe.load(
        over_papers({"training": keys, "methods": {"kd": {"weight": asdict(weight)}}}), said.fix
    )
    mended = as_weight("", recipe.methods["kd"]["weight"])
    assert not list(unreached(recipe.training, {"kd": mended}, 25))


@pytest.mark.parametrize(
    ("keys", "weight"),
    [
        ({"epochs": 240}, EVEN),
        ({"epochs": 211}, EVEN),
        ({"epochs": 4, "gamma": 1.0}, EVEN),
        ({"epochs": 4, "milestones": ()}, EVEN),
        ({"epochs": 4, "schedule": "cosine", "warmup_epochs": 3.0}, EVEN),
        ({"epochs": 4, "schedule": "cosine", "ema": 0.9}, EVEN),
        ({"epochs": 4, "schedule": "cosine", "evaluate_every": 4}, EVEN),
        ({"epochs": 20, "schedule": "cosine"}, Weight(1.0, 20.0, 1)),
    ],
)
def test_what_is_reached_is_not_mentioned(keys: dict[str, Any], weight: Weight) -> None:
    assert not list(unreached(as_in_papers(**keys), {"kd": weight}, 25))


def test_a_run_of_one_step_has_no_average_to_be_too_short_for() -> None:
    assert not list(unreached(as_in_papers(epochs=1, schedule="cosine"), {"kd": EVEN}, 1))


def test_a_run_says_it_when_it_begins(
    tiny: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"training.schedule": "step", "training.epochs": 1, "data.images": 64}
    train(Recipe.load(tiny, keys), out=tmp_path, progress=True)
    assert "The learning rate never falls" in capsys.readouterr().out


def test_one_step_without_an_average_has_none() -> None:
    keys: dict[str, Any] = {"epochs": 1, "schedule": "cosine"}
    assert not list(unreached(as_in_papers(**keys), {}, 1))
    assert not list(unreached(as_in_papers(**keys, ema=0.0), {}, 1))
