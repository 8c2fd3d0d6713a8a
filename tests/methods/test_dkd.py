"""DKD against plain loops, where it is ordinary KD, and where the authors' code overflows."""

from dataclasses import replace
from math import exp, log

import pytest
import torch
from torch.nn import functional as F

from tests.support.forms import random, shapes
from tests.vectors.build import batch
from understudy.batch import UNLABELLED
from understudy.errors import RecipeError, ShapeError
from understudy.functional import kl_divergence
from understudy.methods._logits import standardised
from understudy.methods.dkd import DKD, dkd

NET = shapes("net", logits=4)
LABELS = torch.tensor([0, 3, 1])


def test_equals_the_formula_in_plain_loops() -> None:
    student, teacher = random(3, logits=4), random(3, logits=4)
    total = 0.0
    for s, t, y in zip(student["logits"], teacher["logits"], LABELS.tolist(), strict=True):
        p, q = ([exp(v / 4) / sum(exp(w / 4) for w in z) for v in z.tolist()] for z in (t, s))
        total += p[y] * log(p[y] / q[y]) + (1 - p[y]) * log((1 - p[y]) / (1 - q[y]))
        for k in set(range(4)) - {y}:
            ours, theirs = q[k] / (1 - q[y]), p[k] / (1 - p[y])
            total += 8 * theirs * log(theirs / ours)
    loss = DKD(NET, NET)(student, teacher, batch(3, LABELS))
    assert loss.item() == pytest.approx(16 * total / 3)


def test_is_kd_where_the_others_weigh_as_the_teacher_weighs_them() -> None:
    s, t = random(3, logits=4)["logits"], random(3, logits=4)["logits"]
    others = 1 - t.softmax(1)[torch.arange(3), LABELS]
    both = torch.stack([dkd(s, t, LABELS, 1, w.item(), 1)[i] for i, w in enumerate(others)])
    torch.testing.assert_close(both, kl_divergence(s, t))


@pytest.mark.parametrize("scale", [1e3, 1e5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_student_that_is_very_sure_is_told_so_by_a_finite_number(
    scale: float, dtype: torch.dtype
) -> None:
    s = (scale * F.one_hot(LABELS, 4)).to(dtype).requires_grad_()
    t = torch.randn(3, 4, dtype=dtype)
    rows = dkd(s, t, LABELS, 1, 0, 1)
    rows.sum().backward()
    # log(1 − p) of the student is −scale + log 3, all others negligible.
    share = 1 - t.softmax(1)[torch.arange(3), LABELS]
    torch.testing.assert_close(rows, share * scale, rtol=0.02, atol=0)
    assert s.grad.isfinite().all()


def test_an_image_without_label_counts_for_the_class_the_teacher_sees() -> None:
    student, teacher = random(3, logits=4), random(3, logits=4)
    unlabelled = batch(3, torch.full((3,), UNLABELLED))
    seen = replace(unlabelled, labels=teacher["logits"].argmax(1))
    method = DKD(NET, NET)
    assert torch.equal(method(student, teacher, unlabelled), method(student, teacher, seen))


def test_standardised_logits_forget_range_and_offset() -> None:
    z = torch.randn(5, 7).double()
    expected = (z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-7)
    torch.testing.assert_close(standardised(z), expected)
    student, teacher = {"logits": z[:, :4]}, random(5, logits=4)
    images = batch(5, torch.arange(5) % 4)
    method = DKD(NET, NET, standardise=True)
    moved = {"logits": 30 * student["logits"] + 5}
    torch.testing.assert_close(
        method(moved, teacher, images), method(student, teacher, images), rtol=1e-5, atol=0
    )


def test_equal_logits_standardise_to_zero() -> None:
    z = torch.full((2, 5), 3.0, requires_grad=True)
    out = standardised(z)
    out.sum().backward()
    assert not out.any()
    assert not z.grad.any()


def test_says_what_it_cannot_compare() -> None:
    with pytest.raises(ShapeError, match="3 classes"):
        DKD(shapes("small", logits=3), NET)
    with pytest.raises(ShapeError, match="single class"):
        DKD(shapes("one", logits=1), shapes("one", logits=1))
    with pytest.raises(RecipeError, match="temperature"):
        DKD(NET, NET, temperature=0)
