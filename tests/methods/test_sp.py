"""SP against plain loops, and the forms it compares."""

from math import sqrt

import pytest
from torch import Tensor

from tests.support.forms import random, shapes
from tests.vectors.build import batch
from understudy.errors import ShapeError
from understudy.methods.sp import SP


def similarities(x: Tensor) -> list[list[float]]:
    rows = x.flatten(1).tolist()
    products = [[sum(a * b for a, b in zip(r, q, strict=True)) for q in rows] for r in rows]
    return [[v / sqrt(sum(w * w for w in row)) for v in row] for row in products]


@pytest.mark.parametrize(
    ("ours", "theirs"), [((2, 3, 3), (4, 2, 2)), ((5,), (3,)), ((4, 6), (2, 3, 3))]
)
def test_equals_the_formula_in_plain_loops(ours: tuple[int, ...], theirs: tuple[int, ...]) -> None:
    student, teacher = random(4, x=ours), random(4, x=theirs)
    s, t = similarities(student["x"]), similarities(teacher["x"])
    expected = sum((s[i][j] - t[i][j]) ** 2 for i in range(4) for j in range(4)) / 16
    method = SP(shapes("s", x=ours), shapes("t", x=theirs), feature="x")
    assert method(student, teacher, batch(4)).item() == pytest.approx(expected)


def test_compares_the_last_stage_of_each_network_by_default() -> None:
    student = shapes("s", stage1=(2, 8, 8), stage2=(4, 4, 4))
    teacher = shapes("t", stage1=(2, 8, 8), stage2=(4, 4, 4), stage3=(6, 2, 2))
    method = SP(student, teacher)
    assert (method.student_feature, method.teacher_feature) == ("stage2", "stage3")
    assert method.reads == ("stage3",)


def test_refuses_a_last_stage_that_is_a_vector() -> None:
    flat = shapes("flat", stage1=(2, 8, 8), stage2=4)
    with pytest.raises(ShapeError, match="name the feature"):
        SP(flat, shapes("t", stage1=(2, 8, 8)))
    with pytest.raises(ShapeError, match="no stages"):
        SP(shapes("bare", penultimate=4), flat)


def test_the_scale_of_a_network_does_not_matter() -> None:
    same = shapes("net", x=5)
    student, teacher = random(4, x=5), random(4, x=5)
    loss = SP(same, same, feature="x")(student, teacher, batch(4))
    scaled = {"x": 10 * student["x"]}
    again = SP(same, same, feature="x")(scaled, teacher, batch(4))
    assert again.item() == pytest.approx(loss.item())
