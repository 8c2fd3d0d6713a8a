"""KDSVD against plain loops over singular value decompositions, and its gradient."""

from math import exp

import pytest
import torch
from torch import Tensor

from tests.support.forms import random, shapes
from tests.vectors.build import batch
from understudy.errors import RecipeError, ShapeError
from understudy.methods.kdsvd import KDSVD, singular

STUDENT = shapes("student", stage1=(3, 5, 5), stage2=(4, 4, 4))
TEACHER = shapes("teacher", stage1=(2, 5, 5), stage2=(5, 4, 4))


def aligned(s: Tensor, t: Tensor, k: int) -> tuple[list[list[float]], list[list[float]]]:
    """Vectors of one image, the teacher's first k and those of the student that match them."""
    _, strength, theirs = torch.linalg.svd(t.flatten(0, 1))
    strength = (strength[:k] / strength[:k].norm()).tolist()
    ours = torch.linalg.svd(s.flatten(0, 1))[2][: k + 3].tolist()
    found = []
    for number, v in enumerate(theirs[:k].tolist()):
        v = v if sum(v) >= 0 else [-x for x in v]
        cosines = [sum(a * b for a, b in zip(u, v, strict=True)) for u in ours]
        best = max(range(len(ours)), key=lambda i: abs(cosines[i]))
        sign = 1 if cosines[best] > 0 else -1
        scale = strength[number]
        found.append(([sign * scale * x for x in ours[best]], [scale * x for x in v]))
    return [a for a, _ in found], [b for _, b in found]


@pytest.mark.parametrize("k", [1, 2])
def test_equals_the_formula_in_plain_loops(k: int) -> None:
    student = random(3, stage1=(3, 5, 5), stage2=(4, 4, 4))
    teacher = random(3, stage1=(2, 5, 5), stage2=(5, 4, 4))
    total = 0.0
    for i in range(3):
        first = aligned(student["stage1"][i], teacher["stage1"][i], k)
        second = aligned(student["stage2"][i], teacher["stage2"][i], k)
        for v in range(k):
            for a in range(4):
                for b in range(5):
                    ours, theirs = (
                        exp(-((second[side][v][a] - first[side][v][b]) ** 2) / 8) for side in (0, 1)
                    )
                    total += (ours - theirs) ** 2
    loss = KDSVD(STUDENT, TEACHER, vectors=k)(student, teacher, batch(3))
    assert loss.item() == pytest.approx(total / 3)


def test_vectors_turn_as_their_gradient_says() -> None:
    x = torch.randn(2, 3, 4, 5).double().requires_grad_()
    weight = torch.randn(2, 5, 3).double()

    def turned(x: Tensor) -> Tensor:
        v = singular(x, 3)[1]
        return (v.sum(1, keepdim=True).sign().detach() * v * weight).sum()

    assert torch.autograd.gradcheck(turned, x)


def test_vectors_of_equal_strength_have_no_gradient_between_them() -> None:
    x = torch.eye(4).double().view(1, 1, 4, 4).requires_grad_()
    singular(x, 2)[1].square().sum().backward()
    assert not x.grad.any()


def test_says_what_it_cannot_relate() -> None:
    with pytest.raises(ShapeError, match="two maps or more"):
        KDSVD(STUDENT, TEACHER, stages=("stage2",))
    with pytest.raises(RecipeError, match=r"'KDSVD\.vectors'"):
        KDSVD(STUDENT, TEACHER, vectors=0)
