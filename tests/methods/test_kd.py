"""KD against a plain loop, and its behaviour at the edges."""

from math import exp, log

import pytest
import torch

from tests.support.forms import random, shapes
from tests.vectors.build import batch
from understudy.errors import ShapeError
from understudy.methods.kd import KD

FLAT = shapes("net", logits=4)


def softmax(row: list[float], temperature: float) -> list[float]:
    weights = [exp(x / temperature) for x in row]
    return [w / sum(weights) for w in weights]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_equals_the_formula_in_plain_loops(temperature: float) -> None:
    student, teacher = random(5, logits=4), random(5, logits=4)
    total = 0.0
    for s, t in zip(student["logits"].tolist(), teacher["logits"].tolist(), strict=True):
        p, q = softmax(t, temperature), softmax(s, temperature)
        total += sum(a * log(a / b) for a, b in zip(p, q, strict=True))
    loss = KD(FLAT, FLAT, temperature=temperature)(student, teacher, batch(5))
    assert loss.item() == pytest.approx(temperature**2 * total / 5)


def test_standardised_logits_have_mean_0_and_deviation_1() -> None:
    student, teacher = random(5, logits=4), random(5, logits=4)
    s, t = (
        {"logits": (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-7)}
        for x in (student["logits"], teacher["logits"])
    )
    expected = KD(FLAT, FLAT)(s, t, batch(5))
    loss = KD(FLAT, FLAT, standardise=True)(student, teacher, batch(5))
    torch.testing.assert_close(loss, expected)


def test_gradient_hardly_depends_on_the_temperature() -> None:
    student, teacher = random(5, logits=4), random(5, logits=4)
    sizes = []
    for temperature in (100.0, 200.0):
        s = student["logits"].clone().requires_grad_()
        KD(FLAT, FLAT, temperature=temperature)({"logits": s}, teacher, batch(5)).backward()
        sizes.append(s.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_extreme_logits_stay_finite() -> None:
    s = torch.tensor([[1e4, -1e4, 0, 0], [-1e4, 1e4, 0, 0]], requires_grad=True)
    loss = KD(FLAT, FLAT, temperature=1.0)({"logits": s}, {"logits": s.detach().flip(0)}, batch(2))
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert s.grad.isfinite().all()


def test_projector_stands_between_the_students_logits_and_the_loss() -> None:
    method = KD(FLAT, FLAT, projector=True).double()
    student, teacher = random(5, logits=4), random(5, logits=4)
    projected = {"logits": method.projector(student["logits"])}
    expected = KD(FLAT, FLAT)(projected, teacher, batch(5))
    torch.testing.assert_close(method(student, teacher, batch(5)), expected)


def test_other_classes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"4 classes.*has 7"):
        KD(FLAT, shapes("other", logits=7))
