"""CC against plain loops, and its expectation over the order of a batch."""

from itertools import permutations

import pytest
import torch

from tests.support.forms import random, shapes
from tests.vectors.build import batch
from understudy.errors import RecipeError
from understudy.methods.cc import CC, cc, cc_expected

STUDENT, TEACHER = shapes("student", penultimate=3), shapes("teacher", penultimate=4)


def test_equals_the_formula_in_plain_loops() -> None:
    method = CC(STUDENT, TEACHER, dim=2).double().requires_grad_(False)
    student, teacher = random(4, penultimate=3), random(4, penultimate=4)
    delta = [
        [
            abs(
                sum(w * x for w, x in zip(method.ours.weight[d], s, strict=True))
                + method.ours.bias[d]
                - sum(w * x for w, x in zip(method.theirs.weight[d], t, strict=True))
                - method.theirs.bias[d]
            ).item()
            for d in range(2)
        ]
        for s, t in zip(student["penultimate"], teacher["penultimate"], strict=True)
    ]
    expected = sum(delta[i][d] * delta[i + 1][d] for i in range(3) for d in range(2)) / 3
    assert method(student, teacher, batch(4)).item() == pytest.approx(expected)


def test_in_evaluation_it_is_the_mean_over_all_orders_of_the_batch() -> None:
    s, t = torch.randn(4, 3).double(), torch.randn(4, 3).double()
    orders = list(permutations(range(4)))
    mean = sum(cc(s[list(o)], t[list(o)]).mean() for o in orders) / len(orders)
    torch.testing.assert_close(cc_expected(s, t).mean(), mean)


def test_both_embeddings_are_trained() -> None:
    method = CC(STUDENT, TEACHER, dim=2).double()
    method(random(4, penultimate=3), random(4, penultimate=4), batch(4)).backward()
    assert method.ours.weight.grad.any()
    assert method.theirs.weight.grad.any()


def test_needs_a_dimension() -> None:
    with pytest.raises(RecipeError, match=r"'CC\.dim'"):
        CC(STUDENT, TEACHER, dim=0)
