"""Products by oneDNN, and the means and lengths that every method divides by."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from understudy.functional import (
    LEAST_FOR_CKA,
    batch_mean,
    cosine,
    linear,
    linear_cka,
    linear_no_grad,
    seeded,
    unit,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_product_is_that_of_a_linear_layer(dtype: torch.dtype, rows: int) -> None:
    x, weight, bias = (torch.randn(*n, dtype=dtype) for n in ((rows, 5), (9, 5), (9,)))
    torch.testing.assert_close(linear_no_grad(x, weight, bias), F.linear(x, weight, bias))
    torch.testing.assert_close(linear_no_grad(weight, x), F.linear(weight, x))
    slanted = torch.randn(5, 9, dtype=dtype).T
    torch.testing.assert_close(linear_no_grad(x, slanted), F.linear(x, slanted))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [0, 6])
def test_gradients_are_those_of_a_linear_layer(dtype: torch.dtype, rows: int) -> None:
    leaves = [torch.randn(*n, dtype=dtype).requires_grad_() for n in ((rows, 5), (9, 5), (9,))]
    grads = [torch.autograd.grad(f(*leaves).square().sum(), leaves) for f in (linear, F.linear)]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs)


def gradient(function, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(function(leaf).sum(), leaf)
    return found


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-20])
def test_rows_without_length_have_no_gradient(size: float) -> None:
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    x[1] *= size
    for function in (unit, lambda z: cosine(z, y)):
        grad = gradient(function, x)
        assert not grad[1].any()
        assert grad[0].any()


def test_mean_over_no_row_is_zero_without_gradient() -> None:
    none = torch.zeros(3, dtype=torch.bool)
    values = torch.ones(3, requires_grad=True)
    mean = batch_mean(values, none)
    mean.backward()
    assert mean == 0
    assert values.grad is not None
    assert not values.grad.any()


def test_too_few_images_have_no_cka() -> None:
    x = torch.randn(LEAST_FOR_CKA, 8)
    assert linear_cka(x, 3 * x.flip(1)) == pytest.approx(1.0)
    assert linear_cka(x[1:], x[1:]) is None
    assert linear_cka(x[:1], x[:1]) is None


def test_a_seed_fixes_what_is_drawn_and_leaves_the_generator_as_it_was() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(2)
    undisturbed = torch.rand(3)
    torch.manual_seed(2)
    with seeded(1):
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(torch.rand(3), undisturbed)
