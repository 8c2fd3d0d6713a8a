"""Input contracts: those of other libraries are read, and their numbers have limits."""

from typing import Any

import pytest
import torch

from understudy import models
from understudy.data.mixup import Mixing
from understudy.errors import RecipeError
from understudy.models import Input

NAN = float("nan")


@pytest.mark.parametrize(
    "keys",
    [
        *(
            {"size": 0},
            {"size": -5},
            {"size": 8.5},
            {"size": True},
            {"size": (8, 8)},
            {"mean": (NAN, 0.0, 0.0)},
        ),
        *({"std": (0.0, 1.0, 1.0)}, {"std": (-1.0, 1.0, 1.0)}, {"std": (1.0, 1.0, float("inf"))}),
        {"mean": (0.0, "0", 0.0)},
    ],
)
def test_an_input_that_makes_no_sense_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=f"'{next(iter(keys))}"):
        Input(**keys)


@pytest.mark.parametrize("value", [NAN, -1, 1e308, float("inf"), 1001])
def test_mixing_draws_of_no_other_shape(value: float) -> None:
    for key in ("mixup", "cutmix"):
        with pytest.raises(RecipeError, match=f"data.{key}"):
            Mixing(**{key: value})


def test_input_contract_of_foreign_networks() -> None:
    assert models.find("timm:resnet18").input.mean == (0.485, 0.456, 0.406)
    contract = models.find("torchvision:resnet18").input
    assert (contract.size, contract.interpolation) == (224, "bilinear")
    assert models.find("torchvision:resnet18", size=64, std=(1, 1, 1)).input.std == (1, 1, 1)


def test_images_are_resized_to_height_and_width() -> None:
    contract = models.Input(size=(32, 16))
    assert contract.resize(torch.rand(2, 3, 20, 20)).shape == (2, 3, 32, 16)
    network = models.find("resnet8", size=(32, 16))
    assert network.shapes["stage3"] == (64, 8, 4)
    assert network(torch.rand(2, 3, 40, 40)).shape == (2, 100)
