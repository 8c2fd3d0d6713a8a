"""SRRL against plain loops, and whose classifier it takes."""

import pytest
import torch
from torch import Tensor, nn

from tests.support.forms import random, shapes
from tests.vectors.build import Outputs, batch
from understudy.errors import ShapeError
from understudy.methods.srrl import SRRL
from understudy.models import Input, Network

STUDENT = shapes("student", penultimate=3)
TEACHER = shapes("teacher", penultimate=4, logits=2)


def test_equals_the_formula_in_plain_loops() -> None:
    weight, bias = torch.randn(2, 4).double(), torch.randn(2).double()
    method = SRRL(STUDENT, TEACHER).double().eval().requires_grad_(False)
    teacher = random(5, penultimate=4, logits=2)
    method.prepare(Outputs(teacher, classifier_weight=weight, classifier_bias=bias))
    student = random(5, penultimate=3)
    scale = 1 / (1 + 1e-5) ** 0.5  # Of batch normalisation that has seen nothing.
    total = 0.0
    for s, t, z in zip(student["penultimate"], *teacher.values(), strict=True):
        h = [max(0.0, scale * float(row @ s)) for row in method.projector[0].weight]
        total += sum((a - b) ** 2 for a, b in zip(h, t.tolist(), strict=True)) / 4
        for k in range(2):
            logit = sum(weight[k, d].item() * h[d] for d in range(4)) + bias[k].item()
            total += (logit - z[k].item()) ** 2 / 2
    assert method(student, teacher, batch(5)).item() == pytest.approx(total / 5)


def test_the_classifier_is_saved_and_not_trained() -> None:
    method = SRRL(STUDENT, TEACHER)
    teacher = random(5, penultimate=4, logits=2)
    weight = torch.randn(2, 4)
    method.prepare(Outputs(teacher, classifier_weight=weight))
    assert torch.equal(method.state_dict()["classifier.weight"], weight)
    assert not method.classifier.bias.any()
    assert not dict(method.classifier.named_parameters())


def test_says_whose_classifier_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="no logits"):
        SRRL(STUDENT, shapes("teacher", penultimate=4))
    method, teacher = SRRL(STUDENT, TEACHER), random(5, penultimate=4, logits=2)
    with pytest.raises(ShapeError, match="has none"):
        method.prepare(Outputs(teacher))
    with pytest.raises(ShapeError, match=r"\(2, 7\)"):
        method.prepare(Outputs(teacher, classifier_weight=torch.zeros(2, 7)))


@pytest.mark.parametrize("scale", [True, False])
def test_a_classifier_that_is_not_linear_alone_is_refused(scale: bool) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.fc = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(self.body(x))
            return 3 * logits if scale else logits

    teacher = Network(Scaled(), input=Input(size=16), classifier="fc")
    assert teacher.shapes.linear_classifier != scale
    if scale:
        with pytest.raises(ShapeError, match="computed of its penultimate feature in another way"):
            SRRL(STUDENT, teacher.shapes)
    else:
        SRRL(STUDENT, teacher.shapes)
