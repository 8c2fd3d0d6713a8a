"""A shorter training keeps its proportions, in every key that counts epochs."""

from typing import Any

import pytest

from tests.support.papers import over_papers
from understudy import methods
from understudy.config.recipe import Recipe
from understudy.config.schema import hints_of, leaves
from understudy.distillation.weights import Weight
from understudy.reproduction.shorter import shortened, unit_of

INTERVALS = {"training.evaluate_every"}
"""Keys with epochs in their help that are no length of the training."""


def declared() -> dict[str, Any]:
    """Name → type of every key of recipes, weights and methods."""
    keys = {path: hint for path, hint, _ in leaves(Recipe)}
    keys |= {f"weight.{key}": hint for key, hint in hints_of(Weight).items()}
    for name in methods.names():
        method = methods.find(name)
        hints = hints_of(method.__init__)
        keys |= {f"{name}.{key}": hints[key] for key in methods.hyper_parameters(method)}
    return keys


def test_every_key_in_epochs_says_so() -> None:
    keys = declared()
    named = {key for key in keys if "epochs" in key} | {"training.milestones"}
    assert {key for key, hint in keys.items() if unit_of(hint)} == named
    assert {"ft.paraphraser_epochs", "weight.warmup_epochs", "training.warmup_epochs"} < named


def test_a_quarter_of_a_published_training() -> None:
    changes = {"training.warmup_epochs": 5.0, "methods.ft": {}}
    short = shortened(Recipe.load("cifar100/kd++/resnet56_resnet20", changes), 0.25)
    assert (short.training.epochs, short.training.warmup_epochs) == (60, 1.25)
    assert short.training.milestones == (38, 45, 52)
    assert short.methods["kd"]["weight"] == {"value": 1.0, "warmup_epochs": 5.0}
    assert short.methods["nd"]["weight"] == 2.0
    assert short.methods["ft"] == {"paraphraser_epochs": 8}


@pytest.mark.parametrize(
    ("share", "epochs", "milestones", "warmup"),
    [
        (1.0, 240, (150, 180, 210), 20),
        (0.01, 2, (1,), 0),
        (1e-6, 1, (), 0),
    ],
)
def test_at_least_one_epoch_is_left(
    share: float, epochs: int, milestones: tuple[int, ...], warmup: float
) -> None:
    short = shortened(Recipe.load("cifar100/dkd/resnet56_resnet20"), share)
    assert (short.training.epochs, short.training.milestones) == (epochs, milestones)
    assert short.methods["dkd"]["weight"]["warmup_epochs"] == warmup
    assert short.methods["dkd"]["beta"] == 2.0


def test_a_label_is_no_name_of_a_method() -> None:
    methods = {"mine": {"method": "ft", "paraphraser_epochs": 10}}
    recipe = Recipe.load(over_papers({"methods": methods}))
    assert shortened(recipe, 0.5).methods["mine"] == {"method": "ft", "paraphraser_epochs": 5}
