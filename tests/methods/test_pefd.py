"""PEFD against plain loops, its invariances and its ablations."""

from math import sqrt
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.forms import random, shapes
from tests.vectors.build import batch, load
from understudy.errors import RecipeError, ShapeError
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


def in_loops(x: list[float], layers: nn.Sequential) -> list[float]:
    """Linear layers, with ReLU between them and after the last."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            x = [
                max(sum(w * v for w, v in zip(row, x, strict=True)) + b, 0.0)
                for row, b in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
            ]
    return x


def test_projectors_of_different_depth_and_width_equal_plain_loops() -> None:
    torch.manual_seed(0)
    hyper = {"depth": [1, 2, 3, 1], "width": [5, 7, 4, 5], "projectors": 4}
    method = PEFD(STUDENT, TEACHER, **hyper).double()
    assert [layer.out_features for layer in method.deep[0] if isinstance(layer, nn.Linear)] == [
        7,
        5,
    ]
    flat = [nn.Linear(3, 5).double() for _ in range(2)]
    for layer, weight, bias in zip(flat, method.weight, method.bias, strict=True):
        load(layer, weight=weight.detach(), bias=bias.detach())
    every = [nn.Sequential(layer) for layer in flat] + list(method.deep)
    student, teacher = random(6, penultimate=3), random(6, penultimate=5)
    total = 0.0
    for s, t in zip(student["penultimate"].tolist(), teacher["penultimate"].tolist(), strict=True):
        each = [in_loops(s, layers) for layers in every]
        z = [sum(values) / 4 for values in zip(*each, strict=True)]
        dot = sum(a * b for a, b in zip(z, t, strict=True))
        total += 1 - dot / (sqrt(sum(a * a for a in z)) * sqrt(sum(b * b for b in t)))
    loss = method(student, teacher, batch(6))
    assert loss.item() == pytest.approx(total / 6)
    loss.backward()
    assert all(p.grad is not None for p in method.parameters())


def test_deep_projectors_alone() -> None:
    method = PEFD(STUDENT, TEACHER, depth=2, width=8, activation="none").double()
    assert len(method.deep) == 3
    assert not hasattr(method, "weight")
    student = random(4, penultimate=3)
    expected = sum(layers(student["penultimate"]) for layers in method.deep) / 3
    torch.testing.assert_close(method.projected(student)["penultimate"], expected)


def test_initial_values() -> None:
    torch.manual_seed(0)
    wide = shapes("s", penultimate=6), shapes("t", penultimate=9)
    method = PEFD(*wide, initial=("default", "orthogonal", "xavier"))
    weight = method.weight[1]
    torch.testing.assert_close(weight.T @ weight, torch.eye(6))
    assert method.weight[2].abs().max() <= sqrt(6 / 15)
    assert method.bias[0].any()
    assert not method.bias[1:].any()
    deep = PEFD(*wide, initial="orthogonal", depth=2).deep[0]
    torch.testing.assert_close(deep[0].weight.T @ deep[0].weight, torch.eye(6))
    torch.testing.assert_close(deep[2].weight.T @ deep[2].weight, torch.eye(9))


@pytest.mark.parametrize(
    ("hyper", "words"),
    [
        ({"depth": 0}, "'PEFD.depth' is 0"),
        ({"depth": (1, 2)}, "2 values for 3 projectors"),
        ({"width": (4, 4, -1)}, r"'PEFD.width\[2\]"),
        ({"initial": "orthogonol"}, "did you mean 'orthogonal'"),
        ({"initial": ("default", "zero", "xavier")}, r"PEFD.initial\[1\]' is 'zero'"),
    ],
)
def test_refuses_ensembles_that_make_no_sense(hyper: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        PEFD(STUDENT, TEACHER, **hyper)
