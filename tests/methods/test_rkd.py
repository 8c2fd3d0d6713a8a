"""RKD against plain loops, and its invariances."""

from math import sqrt

import pytest
import torch
from torch import Tensor

from tests.support.forms import random, shapes
from tests.vectors.build import batch
from understudy.methods.rkd import RKD, rkd

STUDENT, TEACHER = shapes("student", penultimate=3), shapes("teacher", penultimate=5)


def huber(a: float, b: float) -> float:
    gap = abs(a - b)
    return gap**2 / 2 if gap < 1 else gap - 0.5


def relations(x: Tensor) -> tuple[dict[tuple[int, int], float], dict[tuple[int, int, int], float]]:
    """Relative distances of pairs, and cosines of triples."""
    rows, count = x.tolist(), len(x)
    steps = {
        (i, j): [b - a for a, b in zip(rows[i], rows[j], strict=True)]
        for i in range(count)
        for j in range(count)
    }
    length = {pair: sqrt(sum(v * v for v in step)) for pair, step in steps.items()}
    mean = sum(length.values()) / (count * (count - 1))
    cosines = {
        (i, j, k): sum(a * b for a, b in zip(steps[i, j], steps[i, k], strict=True))
        / ((length[i, j] * length[i, k]) or 1)
        for i in range(count)
        for j in range(count)
        for k in range(count)
    }
    return {pair: value / mean for pair, value in length.items()}, cosines


def test_equals_the_formula_in_plain_loops() -> None:
    student, teacher = random(4, penultimate=3), random(4, penultimate=5)
    far_s, turned_s = relations(student["penultimate"])
    far_t, turned_t = relations(teacher["penultimate"])
    distance = sum(huber(far_s[p], far_t[p]) for p in far_s) / 16
    angle = sum(huber(turned_s[p], turned_t[p]) for p in turned_s) / 64
    loss = RKD(STUDENT, TEACHER)(student, teacher, batch(4))
    assert loss.item() == pytest.approx(25 * distance + 50 * angle)


def test_shift_turn_and_scale_do_not_matter() -> None:
    s, t = torch.randn(5, 4).double(), torch.randn(5, 4).double()
    turn = torch.linalg.qr(torch.randn(4, 4).double()).Q
    torch.testing.assert_close(rkd(3 * s @ turn + 7, t), rkd(s, t))


def test_equal_images_have_finite_gradients() -> None:
    s = torch.ones(4, 3, requires_grad=True)
    rkd(s, torch.randn(4, 3)).sum().backward()
    assert s.grad.isfinite().all()
