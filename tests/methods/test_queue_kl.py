"""The queue of `queue_kl`: size, contents and state; the loss in plain loops; rule of names."""

import io
import logging
from math import exp, log, sqrt

import pytest
import torch
from torch import Tensor

from tests.support.forms import random, shapes
from tests.vectors.build import Outputs, batch
from understudy.errors import RecipeError, ShapeError
from understudy.methods._tokens import patches, summary
from understudy.methods.queue_kl import QueueKL, affinity_kl, queue_kl

SIZES = {"penultimate": 4, "stage1": (3, 4, 4), "stage2": (5, 2, 3)}
TOKENS = {"cls": 6, "penultimate": 7, "patches": (6, 3, 3)}


def built(queue: int = 6, **hyper: object) -> QueueKL:
    torch.manual_seed(0)
    return QueueKL(shapes("s", **SIZES), shapes("t", **TOKENS), queue=queue, **hyper).double()


def softmax(values: list[float]) -> list[float]:
    total = sum(exp(v) for v in values)
    return [exp(v) / total for v in values]


def kl(student: list[float], teacher: list[float]) -> float:
    q, p = softmax(student), softmax(teacher)
    return sum(a * log(a / b) for a, b in zip(p, q, strict=True))


def dots(row: Tensor, others: Tensor, temperature: float) -> list[float]:
    return [sum(a * b for a, b in zip(row, o, strict=True)).item() / temperature for o in others]


def at_length_one(x: Tensor) -> Tensor:
    return torch.stack([r / sqrt(sum(v * v for v in r.tolist())) for r in x])


def test_both_terms_equal_plain_loops() -> None:
    s, t, queue = (at_length_one(torch.randn(n, 4).double()) for n in (3, 3, 5))
    expected = [kl(dots(a, queue, 0.1), dots(b, queue, 0.1)) for a, b in zip(s, t, strict=True)]
    assert queue_kl(s, t, queue, 0.1).tolist() == pytest.approx(expected)
    expected = [kl(dots(a, s, 0.2), dots(b, t, 0.2)) for a, b in zip(s, t, strict=True)]
    found = affinity_kl(s.unsqueeze(0), t.unsqueeze(0), 0.2)
    assert found.item() == pytest.approx(sum(expected) / 3)


def test_affinities_do_not_see_a_rotation_of_the_teacher() -> None:
    s, t = (torch.nn.functional.normalize(torch.randn(2, 5, 4).double(), dim=2) for _ in range(2))
    turn = torch.linalg.qr(torch.randn(4, 4).double()).Q
    torch.testing.assert_close(affinity_kl(s, t @ turn), affinity_kl(s, t))
    assert not affinity_kl(s[:, :1], t[:, :1]).any()
    same = s.clone().requires_grad_()
    affinity_kl(same, s).sum().backward()
    assert same.grad.abs().max() < 1e-12


def test_the_queue_follows_the_number_of_images_and_must_be_smaller() -> None:
    method = QueueKL(shapes("s", **SIZES), shapes("t", **TOKENS))
    assert not method.prepared
    method.prepare(Outputs(random(120, **TOKENS)))
    assert method.queue.shape == (64, 6)
    with pytest.raises(
        RecipeError, match=r"'queue' of queue_kl is 6 and there are 6 .* out for 16"
    ):
        built(6).prepare(Outputs(random(6, **TOKENS)))


def test_a_run_continues_exactly_from_its_state() -> None:
    method = built()
    steps = [(random(4, **SIZES), random(4, **TOKENS)) for _ in range(5)]
    for student, teacher in steps[:3]:
        method(student, teacher, batch(4))
    stored = io.BytesIO()
    torch.save(method.state_dict(), stored)
    stored.seek(0)
    # The size is that of the state, not of the images that are measured before it is loaded.
    again = QueueKL(shapes("s", **SIZES), shapes("t", **TOKENS)).double()
    again.prepare(Outputs(random(300, **TOKENS)))
    again.load_state_dict(torch.load(stored, weights_only=True))
    for student, teacher in steps[3:]:
        expected = method(student, teacher, batch(4))
        assert torch.equal(again(student, teacher, batch(4)), expected)
    assert torch.equal(again.queue, method.queue)


def test_evaluation_stores_nothing_and_counts_the_batch_in() -> None:
    method = built().eval()
    student, teacher = random(4, **SIZES), random(4, **TOKENS)
    first = method(student, teacher, batch(4))
    assert not method.queue.any()
    assert torch.equal(method.train()(student, teacher, batch(4)), first)
    assert method.queue[:4].any(1).all()


def test_a_batch_that_fills_the_queue_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    method = built(4)
    with caplog.at_level(logging.WARNING, logger="understudy"):
        for _ in range(2):
            method(random(4, **SIZES), random(4, **TOKENS), batch(4))
    assert caplog.text.count("fills the queue of 4") == 1


def test_half_precision_is_compared_in_full() -> None:
    torch.manual_seed(1)
    method = QueueKL(shapes("s", **SIZES), shapes("t", **TOKENS), queue=6)
    student, teacher = (
        {k: x.bfloat16() for k, x in random(4, **each).items()} for each in (SIZES, TOKENS)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method.eval()(student, teacher, batch(4))
    full = [{k: x.float() for k, x in each.items()} for each in (student, teacher)]
    assert torch.equal(loss, method(*full, batch(4)))


def test_names_of_summary_and_patches() -> None:
    student, teacher = shapes("s", **SIZES), shapes("t", **TOKENS)
    assert (summary(student), patches(student)) == ("penultimate", "stage2")
    assert (summary(teacher), patches(teacher)) == ("cls", "patches")
    assert patches(shapes("s", stage1=(2, 4, 4), stage2=7)) == "stage1"
    with pytest.raises(ShapeError, match="Name the feature to compare"):
        patches(shapes("flat", stage1=3))
    named = QueueKL(
        student, teacher, queue=4, summary="penultimate:penultimate", patches="stage1:patches"
    )
    assert named.reads == ("penultimate", "patches")
    assert QueueKL(student, teacher, affinity_weight=0).reads == ("cls",)
    with pytest.raises(ShapeError, match="compares vectors"):
        QueueKL(student, teacher, summary="stage1")
