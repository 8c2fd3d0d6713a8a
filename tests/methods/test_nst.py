"""Neuron selectivity transfer against plain loops, in both of its forms."""

import pytest
import torch

from tests.support.forms import random, shapes
from tests.vectors.build import batch
from understudy.methods.nst import NST, nst


def channels(row: torch.Tensor) -> list[list[float]]:
    """Channels of one map, each of length one."""
    flat = row.flatten(1)
    return (flat / flat.norm(dim=1, keepdim=True)).tolist()


def kernel(a: list[list[float]], b: list[list[float]]) -> float:
    products = [sum(x * y for x, y in zip(c, d, strict=True)) ** 2 for c in a for d in b]
    return sum(products) / len(products)


@pytest.mark.parametrize("side", [2, 5], ids=["over positions", "over channels"])
def test_equals_the_formula_in_plain_loops(side: int) -> None:
    ours, theirs = (6, side, side), (4, side, side)
    student, teacher = random(3, stage1=ours), random(3, stage1=theirs)
    expected = 0.0
    for s_map, t_map in zip(student["stage1"], teacher["stage1"], strict=True):
        s, t = channels(s_map), channels(t_map)
        expected += (kernel(s, s) - 2 * kernel(s, t) + kernel(t, t)) / 3
    method = NST(shapes("s", stage1=ours), shapes("t", stage1=theirs))
    assert method(student, teacher, batch(3)).item() == pytest.approx(expected)


def test_order_and_scale_of_the_channels_do_not_matter() -> None:
    s = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    t = torch.rand(4, 1, 1) * s[:, [2, 0, 3, 1]]
    assert nst(s, t).abs().max() < 1e-12


def test_keeps_no_product_of_single_positions() -> None:
    s, t = (torch.randn(2, 64, 16, 16, requires_grad=True) for _ in range(2))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.append(x.numel()) or x, lambda x: x
    ):
        nst(s, t.detach())
    assert max(kept) <= s.numel()  # all the products would be 64 times as many
