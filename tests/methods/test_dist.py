"""DIST against plain loops, and its degenerate cases."""

from math import exp, sqrt

import pytest
import torch

from tests.support.forms import random, shapes
from tests.vectors.build import batch
from understudy.errors import RecipeError, ShapeError
from understudy.methods.dist import DIST, dist

NET = shapes("net", logits=4)


def correlation(x: list[float], y: list[float]) -> float:
    x, y = ([v - sum(z) / len(z) for v in z] for z in (x, y))
    lengths = [sqrt(sum(v * v for v in z)) for z in (x, y)]
    return sum(a * b for a, b in zip(x, y, strict=True)) / (lengths[0] * lengths[1] + 1e-8)


def test_equals_the_formula_in_plain_loops() -> None:
    student, teacher = random(3, logits=4), random(3, logits=4)
    s, t = (
        [[exp(v / 2) / sum(exp(w / 2) for w in z) for v in z] for z in x["logits"].tolist()]
        for x in (student, teacher)
    )
    inter = 1 - sum(correlation(a, b) for a, b in zip(s, t, strict=True)) / 3
    columns = zip(zip(*s, strict=True), zip(*t, strict=True), strict=True)
    intra = 1 - sum(correlation(list(a), list(b)) for a, b in columns) / 4
    method = DIST(NET, NET, beta=3, gamma=5, tau=2)
    expected = 4 * (3 * inter + 5 * intra)
    assert method(student, teacher, batch(3)).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("spreadless", "least", "most"), [("still", 0, 0), ("published", 1e4, 1e9)]
)
def test_a_uniform_student_has_the_gradient_asked_for(
    spreadless: str, least: float, most: float
) -> None:
    s, t = torch.zeros(1, 4).double().requires_grad_(), torch.randn(1, 4).double()
    dist(s, t, spreadless=spreadless).sum().backward()
    assert least <= s.grad.abs().max() <= most


def test_a_single_image_has_no_relation_to_others() -> None:
    student, teacher = random(1, logits=4), random(1, logits=4)
    assert DIST(NET, NET, beta=0)(student, teacher, batch(1)).item() == pytest.approx(16)


def test_says_what_it_cannot_compare() -> None:
    with pytest.raises(ShapeError, match="3 classes"):
        DIST(shapes("small", logits=3), NET)
    with pytest.raises(RecipeError, match=r"'DIST\.tau'"):
        DIST(NET, NET, tau=0)
