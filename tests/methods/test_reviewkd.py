"""Knowledge review against plain loops."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.forms import random, shapes
from tests.vectors.build import batch
from understudy.errors import RecipeError
from understudy.methods.reviewkd import ABF, ReviewKD, hcl

OURS = {"stage1": (3, 4, 4), "stage2": (5, 2, 2), "penultimate": 6}
THEIRS = {"stage1/preact": (2, 8, 8), "stage2/preact": (4, 4, 4), "penultimate": 7}
THEIRS |= {"stage1": (2, 8, 8), "stage2": (4, 4, 4)}


def mean_square(gap: Tensor, side: int) -> float:
    """Mean square of one map averaged down to `side` positions a side, a divisor of its own."""
    _, height, width = gap.shape
    if side == height:
        cells = gap
    else:
        cells = gap.unflatten(2, (side, width // side)).unflatten(1, (side, height // side))
        cells = cells.mean((2, 4))
    values = cells.flatten().tolist()
    return sum(v * v for v in values) / len(values)


@pytest.mark.parametrize(
    ("side", "scales"),
    [
        (8, [(8, 1.0), (4, 0.5), (2, 0.25), (1, 0.125)]),
        (4, [(4, 1.0), (2, 0.5), (1, 0.25)]),
        (2, [(2, 1.0), (1, 0.5)]),
        (1, [(1, 1.0)]),
    ],
)
def test_context_loss_in_plain_loops(side: int, scales: list[tuple[int, float]]) -> None:
    s, t = (torch.randn(2, 3, side, side, dtype=torch.float64) for _ in range(2))
    total = sum(weight for _, weight in scales)
    expected = [
        sum(weight * mean_square(a - b, cells) for cells, weight in scales) / total
        for a, b in zip(s, t, strict=True)
    ]
    assert hcl(s, t).tolist() == pytest.approx(expected)


def test_levels_are_fused_from_the_deepest() -> None:
    method = ReviewKD(shapes("s", **OURS), shapes("t", **THEIRS)).double().eval()
    student, teacher = random(3, **OURS), random(3, **THEIRS)
    first, second, last = method.fusions
    pooled = {k: x["penultimate"].view(3, -1, 1, 1) for k, x in (("s", student), ("t", teacher))}
    out3, x3 = last(pooled["s"], None, (1, 1))
    out2, x2 = second(student["stage2"], x3, (4, 4))
    out1, _ = first(student["stage1"], x2, (8, 8))
    targets = teacher["stage1/preact"], teacher["stage2/preact"], pooled["t"]
    expected = sum(hcl(o, t).mean() for o, t in zip((out1, out2, out3), targets, strict=True))
    assert method(student, teacher, batch(3)).item() == pytest.approx(expected.item())
    assert x2.shape == (3, 6, 4, 4)  # what the next level reads has the teacher's size already
    assert method.reads == ("stage1/preact", "stage2/preact", "penultimate")


def test_fusion_in_plain_loops() -> None:
    fusion = ABF(3, 4, 2, fuse=True).double().eval()
    level, deeper = random(1, x=(3, 4, 4))["x"], random(1, y=(4, 2, 2))["y"]
    x = fusion.enter(level)[0]
    _, fused = fusion(level, deeper, (4, 4))
    weight, bias = fusion.attention.weight.flatten(1), fusion.attention.bias
    for row in range(4):
        for column in range(4):
            a, b = x[:, row, column], deeper[0, :, row // 2, column // 2]
            z = (weight @ torch.cat([a, b]) + bias).sigmoid()
            torch.testing.assert_close(fused[0, :, row, column], z[0] * a + z[1] * b)


@pytest.mark.parametrize(
    ("inputs", "shape"),
    [(3, (4, 3, 4, 4)), (5, (4, 5, 4, 4)), (3, (2, 3, 1, 1)), (3, (1, 3, 1, 1))],
    ids=["narrow", "wide", "two values", "one value"],
)
def test_training_normalises_what_the_convolution_returns(
    inputs: int, shape: tuple[int, ...]
) -> None:
    fusion = ABF(inputs, 4, 2, fuse=True).double()
    nn.init.normal_(fusion.enter[1].weight)
    nn.init.normal_(fusion.enter[1].bias)
    literal = deepcopy(fusion)
    level, kernel = random(1, x=shape[1:])["x"], random(2, k=(4, 1, 1))["k"]
    level = torch.cat([level * (i + 1) for i in range(shape[0])]).requires_grad_()
    x = literal.enter(level)
    expected = x, F.conv2d(x, kernel)
    actual = fusion._enter_and_convolve(level, kernel)
    weights = [torch.randn_like(y) for y in expected]
    results = []
    for module, outputs in ((literal, expected), (fusion, actual)):
        total = sum((w * y).sum() for w, y in zip(weights, outputs, strict=True))
        gradients = torch.autograd.grad(total, [level, *module.enter.parameters()])
        results.append([*outputs, *gradients, *module.enter.buffers()])
    for mine, right in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("dim", "width"), [(6, 6), (600, 512)])
def test_width_is_that_of_the_students_penultimate_feature(dim: int, width: int) -> None:
    ours = shapes("s", **(OURS | {"penultimate": dim}))
    theirs = shapes("t", **THEIRS)
    assert ReviewKD(ours, theirs).fusions[0].enter[0].out_channels == width
    assert ReviewKD(ours, theirs, width=3).fusions[0].enter[0].out_channels == 3
    with pytest.raises(RecipeError, match=r"'ReviewKD\.width' is 0"):
        ReviewKD(ours, theirs, width=0)


def test_a_teacher_without_maps_before_their_activation_gives_its_stages() -> None:
    ours = shapes("s", **OURS)
    assert ReviewKD(ours, ours).pairs == tuple((stage, stage) for stage in ours.stages)
