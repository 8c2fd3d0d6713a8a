"""Activation boundaries against plain loops."""

import pytest
import torch
from torch import nn

from tests.support.forms import random, shapes
from tests.vectors.build import batch
from understudy.errors import ShapeError
from understudy.methods.ab import AB

SIZES = {"stage1": (3, 4, 4), "stage2": (4, 2, 2)}
BOTH = SIZES | {f"{name}/preact": size for name, size in SIZES.items()}


def element(s: float, t: float) -> float:
    """The published loss of one neuron."""
    if t > 0:
        return (s - 1) ** 2 if s <= 1 else 0.0
    return (s + 1) ** 2 if s > -1 else 0.0


def test_equals_the_formula_in_plain_loops() -> None:
    student, teacher = random(3, **BOTH), random(3, **BOTH)
    teacher["stage1/preact"][0, 0] = 0  # a neuron on its boundary is not active
    expected = 0.0
    for weight, name in ((0.5, "stage1/preact"), (1.0, "stage2/preact")):
        s, t = (x[name].flatten().tolist() for x in (student, teacher))
        expected += weight * 0.003 / 3 * sum(map(element, s, t))
    net = shapes("net", **BOTH)
    assert AB(net, net)(student, teacher, batch(3)).item() == pytest.approx(expected)


def test_connects_different_shapes_without_an_activation() -> None:
    ours = shapes("s", **{"stage1": (3, 8, 8), "stage1/preact": (3, 8, 8)})
    theirs = shapes("t", **{"stage1": (5, 4, 4), "stage1/preact": (5, 4, 4)})
    (connector,) = AB(ours, theirs).connectors
    assert [type(layer).__name__ for layer in connector] == ["Conv2d", "BatchNorm"]
    assert connector(torch.randn(2, 3, 8, 8)).shape == (2, 5, 4, 4)
    (nothing,) = AB(ours, ours).connectors
    assert isinstance(nothing, nn.Identity)


def test_says_which_network_has_no_map_before_its_activation() -> None:
    net, bare = shapes("net", **BOTH), shapes("bare", **SIZES)
    with pytest.raises(ShapeError, match="bare has no feature 'stage1/preact'"):
        AB(bare, net)
    with pytest.raises(ShapeError, match="bare has no feature 'stage1/preact'"):
        AB(net, bare)
