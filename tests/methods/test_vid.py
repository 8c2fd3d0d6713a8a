"""Variational information distillation against plain loops."""

from math import exp, log

import pytest
import torch

from tests.support.forms import random, shapes
from tests.vectors.build import batch
from understudy.errors import RecipeError
from understudy.methods.vid import VID

OURS, THEIRS = {"stage1": (3, 2, 2)}, {"stage1": (4, 2, 2)}


def test_equals_the_formula_in_plain_loops() -> None:
    student, teacher = random(3, **OURS), random(3, **THEIRS)
    method = VID(shapes("s", **OURS), shapes("t", **THEIRS)).double()
    with torch.no_grad():
        method.log_scales[0].normal_()
        mean = method.means[0](student["stage1"])
    expected = 0.0
    for i in range(3):
        for c in range(4):
            variance = log(1 + exp(method.log_scales[0][c].item())) + 1e-5
            gaps = (mean[i, c] - teacher["stage1"][i, c]).flatten().tolist()
            expected += sum(0.5 * (g * g / variance + log(variance)) for g in gaps) / 48
    assert method(student, teacher, batch(3)).item() == pytest.approx(expected)


@pytest.mark.parametrize("variance", [0.5, 5.0])
def test_variance_begins_as_asked_and_is_trained(variance: float) -> None:
    method = VID(shapes("s", **OURS), shapes("t", **THEIRS), variance=variance).double()
    (scale,) = method.log_scales
    assert (scale.exp() + 1).log().detach().tolist() == pytest.approx([variance] * 4, abs=2e-5)
    assert scale in set(method.parameters())
    method(random(3, **OURS), random(3, **THEIRS), batch(3)).backward()
    assert scale.grad.ne(0).all()


def test_means_have_three_layers_without_bias() -> None:
    method = VID(shapes("s", **OURS), shapes("t", **THEIRS))
    shapes_of = [tuple(p.shape) for p in method.means.parameters()]
    assert shapes_of == [(4, 3, 1, 1), (4, 4, 1, 1), (4, 4, 1, 1)]


def test_says_which_variance_makes_no_sense() -> None:
    with pytest.raises(RecipeError, match=r"'VID\.variance' is 0"):
        VID(shapes("s", **OURS), shapes("t", **THEIRS), variance=0.0)
