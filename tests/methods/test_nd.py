"""ND against plain loops, the two branches of its maximum, its means and its ablations."""

from dataclasses import replace
from math import sqrt

import pytest
import torch
from torch import Tensor

from tests.support.forms import random, shapes
from tests.vectors.build import Outputs, batch, load
from understudy.batch import UNLABELLED, Mixed
from understudy.errors import ShapeError
from understudy.functional import unit
from understudy.methods.nd import ND, nd

FLAT = shapes("net", penultimate=4, logits=3)


def length(x: Tensor) -> float:
    return sqrt(sum(float(v) ** 2 for v in x))


def dot(x: Tensor, y: Tensor) -> float:
    return sum(float(a * b) for a, b in zip(x, y, strict=True))


def row(terms: str, s: Tensor, t: Tensor, c: Tensor) -> float:
    if terms == "nd":
        return 1 - dot(s, c) / length(c) / max(length(s), length(t))
    if terms == "direction":
        return 1 - dot(s, c) / length(c) / length(s)
    return (length(s) - length(t)) ** 2 if terms == "norm" else 0.3**2


@pytest.mark.parametrize("terms", ["nd", "direction", "norm", "sifn"])
def test_equals_the_formula_in_plain_loops(terms: str) -> None:
    method = ND(FLAT, FLAT, terms=terms, step=0.3).double()
    means = torch.randn(3, 4).double()
    load(method, class_means=means)
    student, teacher = random(5, penultimate=4), random(5, penultimate=4, logits=3)
    labels = torch.tensor([0, 2, UNLABELLED, 1, UNLABELLED])
    known = [
        int(y) if y >= 0 else int(z.argmax())
        for y, z in zip(labels, teacher["logits"], strict=True)
    ]
    rows = [
        row(terms, s, t, means[k])
        for s, t, k in zip(student["penultimate"], teacher["penultimate"], known, strict=True)
    ]
    loss = method(student, teacher, batch(5, labels))
    assert loss.item() == pytest.approx(sum(rows) / 5)


def test_short_students_are_pulled_along_the_mean_and_long_ones_only_turned() -> None:
    s = torch.tensor([[0.6, 0.8], [6.0, 8.0]], dtype=torch.float64, requires_grad=True)
    t = torch.tensor([[0.0, 2.0], [0.0, 2.0]], dtype=torch.float64)
    center = torch.tensor([[3.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    nd(s, t, center).sum().backward()
    torch.testing.assert_close(s.grad[0], torch.tensor([-0.5, 0.0], dtype=torch.float64))
    assert dot(s.grad[1], s.detach()[1]) == pytest.approx(0, abs=1e-12)
    assert s.grad[1].any()


def test_stepwise_norm_pushes_outwards_with_constant_force() -> None:
    method = ND(FLAT, FLAT, terms="sifn", step=0.3).double()
    student, teacher = random(5, penultimate=4), random(5, penultimate=4, logits=3)
    s = student["penultimate"].requires_grad_()
    method(student, teacher, batch(5)).backward()
    torch.testing.assert_close(s.grad, -2 * 0.3 * unit(s.detach()) / 5)


def test_class_means_are_those_of_the_labelled_and_the_predicted() -> None:
    features = {"penultimate": torch.randn(40, 4), "logits": torch.randn(40, 3)}
    labels = torch.randint(-1, 2, (40,))
    method = ND(FLAT, FLAT)
    method.prepare(Outputs(features, labels))
    known = torch.where(labels < 0, features["logits"].argmax(1), labels)
    for k, mean in enumerate(method.class_means):
        torch.testing.assert_close(mean, features["penultimate"][known == k].mean(0))


def test_class_without_images_is_left_alone() -> None:
    features = {"penultimate": torch.randn(9, 4), "logits": torch.randn(9, 3)}
    method = ND(FLAT, FLAT)
    method.prepare(Outputs(features, torch.arange(9) % 2))
    s = torch.randn(1, 4, requires_grad=True)
    one = {name: x[:1] for name, x in features.items()}
    loss = method({"penultimate": s}, one, batch(1, [2]))
    loss.backward()
    assert loss == 1
    assert not s.grad.any()


@pytest.mark.parametrize("means", ["clean", "augmented"])
def test_means_are_taken_over_the_images_asked_for(means: str) -> None:
    asked = []

    class Listening(Outputs):
        def batches(self, *, augmented: bool):  # type: ignore[no-untyped-def]
            asked.append(augmented)
            return super().batches(augmented=augmented)

    features = {"penultimate": torch.randn(9, 4), "logits": torch.randn(9, 3)}
    ND(FLAT, FLAT, means=means).prepare(Listening(features, torch.arange(9) % 3))
    assert asked == [means == "augmented"]


def test_projector_comes_only_between_different_dimensions() -> None:
    assert not list(ND(FLAT, FLAT).parameters())
    method = ND(shapes("wide", penultimate=6), FLAT)
    assert [type(layer).__name__ for layer in method.embedding] == [
        "BatchNorm",
        "Dropout",
        "Linear",
    ]


def test_images_that_no_one_can_name_are_refused() -> None:
    encoder = shapes("encoder", penultimate=4)
    features = {"penultimate": torch.randn(9, 4)}
    with pytest.raises(ShapeError, match="neither"):
        ND(encoder, encoder)
    method = ND(FLAT, encoder)
    with pytest.raises(ShapeError, match="no label"):
        method.prepare(Outputs(features, torch.full((9,), UNLABELLED)))
    with pytest.raises(ShapeError, match="label 3"):
        method.prepare(Outputs(features, torch.full((9,), 3)))
    method.prepare(Outputs(features, torch.arange(9) % 3))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixed_images_follow_both_means(smoothing: float) -> None:
    method = ND(FLAT, FLAT).double()
    means = random(3, c=4)["c"]
    load(method, class_means=means)
    student, teacher = random(6, penultimate=4), random(6, penultimate=4, logits=3)
    labels, share = torch.tensor([0, 1, 2, 2, 1, UNLABELLED]), 0.3
    mixed = Mixed(labels.flip(0), torch.full((6,), share))
    images = replace(batch(6, labels), mixed=mixed, smoothing=smoothing)
    # The teacher guesses the one label that is missing, wherever its image is seen.
    guess = teacher["logits"].argmax(1)
    own = torch.where(labels < 0, guess, labels)
    other = torch.where(labels.flip(0) < 0, guess, labels.flip(0))
    spread = smoothing / 3 * sum(means[k] for k in own)
    total = 0.0
    for i in range(6):
        pure = share * means[own[i]] + (1 - share) * means[other[i]]
        c = (1 - smoothing) * pure + spread
        total += row("nd", student["penultimate"][i], teacher["penultimate"][i], c)
    assert method(student, teacher, images).item() == pytest.approx(float(total) / 6, rel=1e-6)
