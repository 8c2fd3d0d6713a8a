"""Steps that leave batch normalisation a single value name the keys to change."""

import pytest
import torch
from torch import nn

from understudy.errors import NetworkError, RecipeError
from understudy.training.batch_norm import enough_images, enough_values


def test_a_single_value_names_the_keys_of_a_recipe() -> None:
    norm = nn.BatchNorm1d(4)
    with (
        pytest.raises(
            RecipeError, match=r"1 image had one: set training.batch higher, or training.acc"
        ),
        enough_images(1),
    ):
        norm(torch.rand(1, 4))
    with pytest.raises(RecipeError, match=r"data.size"), enough_images(3):
        nn.BatchNorm2d(4)(torch.rand(1, 4, 1, 1))


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(ValueError, match="expected 2D"), enough_images(1):
        nn.BatchNorm1d(4)(torch.rand(2, 4, 1, 1))


def test_a_group_of_one_value_in_evaluation_is_said_with_the_cause() -> None:
    norm = nn.GroupNorm(4, 4).eval()
    sentence = "The student x normalises groups of a single value"
    with pytest.raises(NetworkError, match=sentence), enough_values("student x"):
        norm(torch.ones(1, 4, 1, 1))
    with pytest.raises(ValueError, match="other"), enough_values("student x"):
        raise ValueError("other")
