"""FitNet against a plain loop, and the projectors between every pair of forms."""

import pytest
import torch
from torch import nn

from tests.support.forms import random, shapes
from tests.vectors.build import batch
from understudy.errors import ShapeError
from understudy.methods._projectors import BatchNorm, as_map
from understudy.methods.fitnet import FitNet


def test_equals_the_formula_in_plain_loops() -> None:
    same = shapes("net", stage2=(2, 3, 3))
    student, teacher = random(4, stage2=(2, 3, 3)), random(4, stage2=(2, 3, 3))
    pairs = zip(
        student["stage2"].flatten().tolist(), teacher["stage2"].flatten().tolist(), strict=True
    )
    expected = sum((s - t) ** 2 for s, t in pairs) / (4 * 2 * 3 * 3)
    loss = FitNet(same, same, projector="none")(student, teacher, batch(4))
    assert loss.item() == pytest.approx(expected)


FORMS = {
    "same map": ((4, 6, 6), (5, 6, 6)),
    "halved map": ((4, 12, 12), (5, 6, 6)),
    "doubled map": ((4, 6, 6), (5, 12, 12)),
    "cut map": ((4, 7, 8), (5, 6, 6)),
    "vectors": ((4,), (5,)),
    "tokens": ((9, 4), (9, 5)),
    "tokens to map": ((16, 4), (5, 4, 4)),
    "map to tokens": ((4, 8, 8), (16, 5)),
    "map to tokens behind a class token": ((4, 4, 4), (17, 5)),
    "map that is not half as large": ((4, 4, 4), (5, 6, 6)),
    "map that is larger one way, smaller the other": ((4, 8, 4), (5, 6, 6)),
    "larger map to tokens": ((4, 12, 12), (26, 5)),
    "other grids of tokens": ((9, 4), (17, 5)),
}


@pytest.mark.parametrize("name", FORMS)
def test_leads_from_the_students_form_to_the_teachers(name: str) -> None:
    ours, theirs = FORMS[name]
    method = FitNet(shapes("s", x=ours), shapes("t", x=theirs), feature="x").double()
    student, teacher = random(3, x=ours), random(3, x=theirs)
    student["x"].requires_grad_()
    loss = method(student, teacher, batch(3))
    loss.backward()
    assert loss.isfinite()
    assert student["x"].grad.any()


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ((4, 4, 4), (5,), "vector can only"),
        ((4, 4, 4), (21, 5), "no square grid"),
    ],
)
def test_says_which_forms_cannot_be_compared(
    ours: tuple[int, ...], theirs: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ShapeError, match=words):
        FitNet(shapes("s", x=ours), shapes("t", x=theirs), feature="x")


def test_without_regressor_shapes_must_be_equal() -> None:
    with pytest.raises(ShapeError, match="equal shapes"):
        FitNet(shapes("s", stage2=(4, 6, 6)), shapes("t", stage2=(5, 6, 6)), projector="none")


def test_tokens_lie_row_by_row_and_the_class_token_is_left_out() -> None:
    grid = torch.arange(6.0).view(1, 6, 1)[:, :4]
    expected = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    assert torch.equal(as_map(grid), expected)
    assert torch.equal(as_map(torch.cat([torch.full((1, 1, 1), 9.0), grid], dim=1)), expected)


@pytest.mark.parametrize("shape", [(8, 3), (8, 3, 4, 5)])
def test_normalises_batches_as_torch_does(shape: tuple[int, ...]) -> None:
    ours, theirs = BatchNorm(3), (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(3)
    x = 3 * torch.randn(shape) + 1
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_a_map_keeps_its_memory_layout() -> None:
    x = torch.randn(8, 3, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    norm = BatchNorm(3)
    y = norm(x)
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    for tensor in (y, gradient):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, norm(x.contiguous()))


@pytest.mark.parametrize("rows", [0, 1])
def test_normalises_a_batch_without_spread_by_what_it_has_seen(rows: int) -> None:
    norm = BatchNorm(3)
    norm(3 * torch.randn(50, 3) + 1)
    before = norm.running_mean.clone()
    x = torch.randn(rows, 3)
    torch.testing.assert_close(norm(x), norm.eval()(x))
    assert torch.equal(norm.running_mean, before)
