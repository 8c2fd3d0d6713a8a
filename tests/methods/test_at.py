"""Attention transfer against plain loops."""

import pytest
import torch

from tests.support.forms import random, shapes
from tests.vectors.build import batch
from understudy.errors import RecipeError
from understudy.methods.at import AT

OURS = {"stage1": (3, 4, 4), "stage2": (4, 2, 2)}
THEIRS = {"stage1": (5, 4, 4), "stage2": (2, 4, 4)}


def attention(row: torch.Tensor) -> list[float]:
    """Normalised mean of the squared channels, averaged down to 2 × 2 if `row` is larger."""
    channels = row.flatten(1).tolist()
    raw = [sum(c[n] ** 2 for c in channels) / len(channels) for n in range(len(channels[0]))]
    length = sum(v * v for v in raw) ** 0.5
    return [v / length for v in raw]


def test_equals_the_formula_in_plain_loops() -> None:
    student, teacher = random(3, **OURS), random(3, **THEIRS)
    halved = teacher["stage2"].unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean((3, 5))
    expected = 0.0
    for s_maps, t_maps in ((student["stage1"], teacher["stage1"]), (student["stage2"], halved)):
        for s, t in zip(s_maps, t_maps, strict=True):
            gaps = [(a - b) ** 2 for a, b in zip(attention(s), attention(t), strict=True)]
            expected += sum(gaps) / len(gaps) / 3
    loss = AT(shapes("s", **OURS), shapes("t", **THEIRS))(student, teacher, batch(3))
    assert loss.item() == pytest.approx(expected)


def test_scale_of_a_map_does_not_matter() -> None:
    net = shapes("net", stage1=(3, 4, 4))
    student = random(3, stage1=(3, 4, 4))
    assert AT(net, net)(student, {"stage1": 7 * student["stage1"]}, batch(3)).item() < 1e-20


def test_a_stage_of_one_position_teaches_nothing() -> None:
    net = shapes("net", stage1=(3, 1, 1))
    student, teacher = random(3, stage1=(3, 1, 1)), random(3, stage1=(3, 1, 1))
    student["stage1"].requires_grad_()
    loss = AT(net, net)(student, teacher, batch(3))
    loss.backward()
    assert loss.item() == pytest.approx(0)
    assert student["stage1"].grad.abs().max() < 1e-12


def test_says_which_power_makes_no_sense() -> None:
    net = shapes("net", stage1=(3, 4, 4))
    with pytest.raises(RecipeError, match=r"'AT.power' is 0\.5"):
        AT(net, net, power=0.5)
