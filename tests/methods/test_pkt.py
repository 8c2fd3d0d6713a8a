"""PKT against plain loops."""

from math import log, sqrt

import pytest
import torch
from torch import Tensor

from tests.support.forms import random, shapes
from tests.vectors.build import batch
from understudy.errors import RecipeError
from understudy.methods.pkt import PKT, pkt

STUDENT, TEACHER = shapes("student", penultimate=3), shapes("teacher", penultimate=5)
EPS = 1e-7


def neighbours(x: Tensor) -> list[list[float]]:
    rows = [[v / (sqrt(sum(w * w for w in r)) + EPS) for v in r] for r in x.tolist()]
    kernel = [[(sum(a * b for a, b in zip(r, q, strict=True)) + 1) / 2 for q in rows] for r in rows]
    return [[v / sum(row) for v in row] for row in kernel]


def test_equals_the_formula_in_plain_loops() -> None:
    student, teacher = random(4, penultimate=3), random(4, penultimate=5)
    q, p = neighbours(student["penultimate"]), neighbours(teacher["penultimate"])
    expected = sum(
        p[i][j] * log((p[i][j] + EPS) / (q[i][j] + EPS)) for i in range(4) for j in range(4)
    )
    loss = PKT(STUDENT, TEACHER)(student, teacher, batch(4))
    assert loss.item() == pytest.approx(expected / 16)


def test_is_zero_between_equal_directions() -> None:
    s = torch.randn(5, 4).double()
    torch.testing.assert_close(pkt(s, 8 * s).sum(), torch.zeros(()).double(), atol=1e-7, rtol=0)


def test_needs_a_positive_eps() -> None:
    with pytest.raises(RecipeError, match=r"'PKT\.eps'"):
        PKT(STUDENT, TEACHER, eps=0)
