"""PEFD against plain loops, its invariances and its ablations."""

from math import sqrt

import pytest
import torch
from vectors.build import batch

from methods.forms import random, shapes
from understudy.errors import ShapeError
from understudy.methods.pefd import PEFD, project

STUDENT, TEACHER = shapes("student", penultimate=3), shapes("teacher", penultimate=5)


@pytest.mark.parametrize("activation", ["relu", "none"])
def test_equals_the_formula_in_plain_loops(activation: str) -> None:
    method = PEFD(STUDENT, TEACHER, projectors=2, activation=activation).double()
    method.requires_grad_(False)
    student, teacher = random(4, penultimate=3), random(4, penultimate=5)
    total = 0.0
    for s, t in zip(student["penultimate"], teacher["penultimate"], strict=True):
        z = [0.0] * 5
        for weight, bias in zip(method.weight, method.bias, strict=True):
            for d in range(5):
                value = sum(weight[d, j] * s[j] for j in range(3)) + bias[d]
                z[d] += (max(value, 0.0) if activation == "relu" else value) / 2
        dot = sum(a * b for a, b in zip(z, t, strict=True))
        total += 1 - dot / (sqrt(sum(a * a for a in z)) * sqrt(sum(b * b for b in t)))
    assert method(student, teacher, batch(4)).item() == pytest.approx(float(total) / 4)


def test_norms_of_ensemble_and_teacher_do_not_matter() -> None:
    method = PEFD(STUDENT, TEACHER).double()
    student, teacher = random(4, penultimate=3), random(4, penultimate=5)
    loss = method(student, teacher, batch(4))
    with torch.no_grad():
        method.weight.mul_(7)
        method.bias.mul_(7)
    scaled = {"penultimate": 100 * teacher["penultimate"]}
    torch.testing.assert_close(method(student, scaled, batch(4)), loss)


def test_each_projector_starts_as_a_linear_layer_would() -> None:
    torch.manual_seed(0)
    method = PEFD(shapes("s", penultimate=100), shapes("t", penultimate=500), projectors=4)
    for values in (method.weight, method.bias):
        assert values.abs().max() <= 0.1
        assert values.std().item() == pytest.approx(0.1 / sqrt(3), rel=0.05)
    assert not torch.equal(method.weight[0], method.weight[1])


def test_without_activation_the_ensemble_is_one_layer() -> None:
    s = random(4, penultimate=3)["penultimate"]
    weight, bias = torch.randn(3, 5, 3).double(), torch.randn(3, 5).double()
    one = project(s, weight.mean(0, keepdim=True), bias.mean(0, keepdim=True), "none")
    torch.testing.assert_close(project(s, weight, bias, "none"), one)


def test_without_projectors_features_are_compared_as_they_are() -> None:
    method = PEFD(TEACHER, TEACHER, projectors=0)
    assert not list(method.parameters())
    same = random(4, penultimate=5)
    assert method(same, same, batch(4)).item() == pytest.approx(0, abs=1e-9)
    with pytest.raises(ShapeError, match="projectors"):
        PEFD(STUDENT, TEACHER, projectors=0)
