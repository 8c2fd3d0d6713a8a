"""letKD from its formulas in plain loops, and what its hyper-parameters do."""

from math import exp, log, sqrt

import pytest
import torch
from torch import Tensor, nn

from tests.support.forms import shapes
from tests.vectors.build import batch
from understudy import models
from understudy.batch import UNLABELLED
from understudy.errors import NetworkError, ShapeError
from understudy.layers.kd_layer import KDLayer, WithLayer
from understudy.methods.letkd import (
    LetKD,
    divergence,
    own_subclass,
    word_probabilities,
)
from understudy.models.network import Network
from understudy.models.preprocessing import Input

SMALL = {"words": 6, "subclasses": 2, "dims": 3}


def tiny(depth: int = 8, classes: int = 3) -> Network:
    options = {"widths": (4, 4, 6, 8)} if depth == 8 else {"widths": (4, 4, 6, 9)}
    return models.find(f"resnet{depth}", num_classes=classes, options=options, size=32)


def pair(**hyper: object) -> tuple[Network, Network, LetKD]:
    torch.manual_seed(0)
    student, teacher = tiny(8), tiny(14).eval()
    LetKD.extend(student, teacher.shapes, **SMALL, **hyper)
    return student, teacher, LetKD(student.shapes, teacher.shapes, **SMALL, **hyper)


def measured(method: LetKD) -> LetKD:
    """With words, sub-classes and decisions of chance."""
    for name, buffer in method.named_buffers():
        if name == "word_counts":
            buffer.fill_(1)
        else:
            buffer.copy_(torch.rand(buffer.shape))
    method.decisions.div_(method.decisions.sum(1, keepdim=True))
    method.prepared = True
    return method


def test_layer_in_loops() -> None:
    torch.manual_seed(1)
    layer = KDLayer(3, 4, alpha=0.7, averaged=False).double().eval()
    layer.norm.weight.data.uniform_(0.5, 2)
    layer.norm.bias.data.uniform_(-0.5, 0.5)
    layer.norm.running_mean.uniform_(-1, 1)
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    omega, v = layer.score.weight.tolist(), layer.value.weight.tolist()
    gamma, beta = layer.norm.weight.tolist(), layer.norm.bias.tolist()
    mean, var = layer.norm.running_mean.tolist(), layer.norm.running_var.tolist()
    expected = x.clone()
    for b in range(2):
        for h in range(2):
            for w in range(2):
                here = x[b, :, h, w].tolist()
                a = [3.0 * cosine(here, omega[k]) for k in range(4)]
                u = [
                    max(0.0, gamma[k] * (a[k] - mean[k]) / sqrt(var[k] + 1e-5) + beta[k])
                    for k in range(4)
                ]
                for c in range(3):
                    expected[b, c, h, w] += float(layer.alpha) * cosine(u, v[c])
    torch.testing.assert_close(layer(x), expected)


def cosine(x: list[float], y: list[float]) -> float:
    lengths = sqrt(sum(a * a for a in x)) * sqrt(sum(b * b for b in y))
    return sum(a * b for a, b in zip(x, y, strict=True)) / lengths if lengths else 0.0


def test_targets_and_divergence_in_loops() -> None:
    torch.manual_seed(2)
    f, words = torch.randn(2, 3, 1, 2).double(), torch.randn(4, 3).double()
    scores = torch.randn(2, 4, 1, 2).double()
    expected = []
    for b in range(2):
        total = 0.0
        for w in range(2):
            here, theirs = f[b, :, 0, w], scores[b, :, 0, w]
            weights = [exp(-0.5 * float((here - rho).square().sum())) for rho in words]
            soft = [weight / sum(weights) for weight in weights]
            ours = [float(s.exp() / theirs.exp().sum()) for s in theirs]
            total += sum(p * (log(p) - log(q)) for p, q in zip(soft, ours, strict=True))
        expected.append(total / 2)
    found = divergence(scores, word_probabilities(f, words, 0.5))
    torch.testing.assert_close(found, torch.tensor(expected).double())


def test_divergence_of_certain_targets_is_finite_in_value_and_gradient() -> None:
    scores = torch.randn(1, 4, 1, 1, requires_grad=True)
    target = torch.tensor([0.0, 1.0, 0.0, 0.0]).view(1, 4, 1, 1)
    loss = divergence(scores, target).sum()
    loss.backward()
    torch.testing.assert_close(loss, -scores.log_softmax(1)[0, 1, 0, 0])
    torch.testing.assert_close(scores.grad, scores.detach().softmax(1) - target)


def test_a_word_without_locations_has_no_probability() -> None:
    f, words = torch.randn(2, 3, 2, 2), torch.randn(4, 3)
    heard = torch.tensor([True, False, True, True])
    soft = word_probabilities(f, words, 1.0, heard)
    assert (soft[:, 1] == 0).all()
    torch.testing.assert_close(soft[:, heard], word_probabilities(f, words[heard], 1.0))


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_words_are_as_exact_as_float32_whatever_the_products(precision: str) -> None:
    torch.manual_seed(3)
    f, words = 5 * torch.rand(1, 64, 4, 4), 5 * torch.rand(16, 64)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        soft = word_probabilities(f, words, 1.0)
    finally:
        torch.set_float32_matmul_precision(before)
    exact = word_probabilities(f.double(), words.double(), 1.0)
    torch.testing.assert_close(soft.double(), exact, rtol=1e-3, atol=1e-4)


def test_sub_class_is_the_nearest_of_the_own_label() -> None:
    centers = torch.tensor([[[0.0], [4.0]], [[1.0], [9.0]]])  # (classes, count, dims)
    z = torch.tensor([1.0, 3.0, 8.0]).view(1, 1, 1, 3).expand(2, -1, -1, -1)
    found = own_subclass(z, torch.tensor([0, 1]), centers)
    assert found.tolist() == [[[0, 1, 1]], [[2, 2, 3]]]


def test_target_of_the_intermediate_place_is_a_row_of_the_decisions() -> None:
    _, teacher, method = pair()
    measured(method)
    images, labels = torch.rand(3, 3, 32, 32), torch.tensor([2, 0, 1])
    z = teacher.features(images)["last_stage/first"].detach()
    target = method.decision_rows(z, labels)
    for b in range(3):
        at = (z[b, :, 1, 5] - method.axes_mean) @ method.axes
        own = range(2 * int(labels[b]), 2 * int(labels[b]) + 2)
        s = min(own, key=lambda i: float((at - method.centers[i]).square().sum()))
        torch.testing.assert_close(target[b, :, 1, 5], method.decisions[s])


def test_unlabelled_images_take_the_class_that_the_teacher_sees() -> None:
    student, teacher, method = pair(places="intermediate")
    measured(method)
    images = torch.rand(4, 3, 32, 32)
    ours, theirs = student.features(images), teacher.features(images)
    guess = batch(4, theirs["logits"].argmax(1))
    unknown = batch(4, torch.full((4,), UNLABELLED))
    assert torch.equal(method(ours, theirs, unknown), method(ours, theirs, guess))


@pytest.mark.parametrize(("size", "side"), [(64, 16), (48, 12), (16, 4)])
def test_maps_of_the_teacher_are_averaged_to_the_students_size(size: int, side: int) -> None:
    torch.manual_seed(0)
    student = tiny(8)
    teacher = Network(tiny(14).module, input=Input(size=size)).eval()
    LetKD.extend(student, teacher.shapes, places="penultimate", words=6)
    method = LetKD(student.shapes, teacher.shapes, places="penultimate", words=6)
    method.words.normal_()
    method.word_counts.fill_(1)
    method.prepared = True
    images = torch.rand(2, 3, 32, 32)
    ours, theirs = student.features(images), teacher.features(images)
    t = theirs["penultimate/map"]
    assert t.shape[2:] == (side, side)
    if side == 16:
        pooled = nn.functional.avg_pool2d(t, 2)
    elif side == 4:  # of a smaller map positions are repeated
        pooled = t.repeat_interleave(2, 2).repeat_interleave(2, 3)
    else:
        pooled = nn.functional.adaptive_avg_pool2d(t, 8)
    target = word_probabilities(pooled, method.words, 1.0)
    expected = divergence(ours["letkd/penultimate"], target).mean()
    torch.testing.assert_close(method(ours, theirs, batch(2)), expected)


def test_without_layers_in_the_student_says_what_to_call() -> None:
    with pytest.raises(ShapeError, match=r"no KD layer at 'last_stage/first'; call LetKD.extend"):
        LetKD(tiny().shapes, tiny(14).shapes)


def test_a_network_without_maps_is_refused() -> None:
    flat = shapes("flat", penultimate=8, logits=3)
    with pytest.raises(ShapeError, match="flat has no"):
        LetKD(flat, flat)


def test_quest_supervises_scores_and_leaves_the_student_as_it_is() -> None:
    torch.manual_seed(0)
    plain, images = tiny(8).eval(), torch.rand(2, 3, 32, 32)
    before = plain(images)
    LetKD.extend(plain, tiny(14).shapes, places="penultimate", words=6, alpha=0.0)
    assert plain.features(images)["letkd/penultimate"].shape == (2, 6, 8, 8)
    assert torch.equal(plain(images), before)
    assert plain.plain().state_dict().keys() == tiny(8).module.state_dict().keys()


def test_control_of_capacity_has_the_layers_and_asks_nothing_of_the_teacher() -> None:
    student, _, method = pair(supervised=False)
    ours = student.features(torch.rand(2, 3, 32, 32))
    assert method.reads == ()
    loss = method(ours, {}, batch(2))
    assert loss == 0
    loss.backward()
    supervised, _, _ = pair()
    assert student.state_dict().keys() == supervised.state_dict().keys()


def test_loss_adds_both_places() -> None:
    student, teacher, method = pair()
    measured(method)
    images, seen = torch.rand(4, 3, 32, 32), batch(4, torch.tensor([0, 1, 2, 0]))
    ours, theirs = student.features(images), teacher.features(images)
    parts = method.losses(ours, theirs, seen)
    assert list(parts) == ["intermediate", "penultimate"]
    torch.testing.assert_close(method(ours, theirs, seen), sum(parts.values(), Tensor([0])).sum())


def test_layers_back_to_back_where_the_last_stage_has_one_block() -> None:
    student, _, _ = pair()
    last = student.module.stages
    assert isinstance(last, WithLayer)
    assert isinstance(last.body[2], WithLayer)
    assert last.layer._averages
    assert not last.body[2].layer._averages


def test_a_feature_that_is_no_map_takes_no_layer() -> None:
    with pytest.raises(NetworkError, match="No layer can be put at 'penultimate' of resnet8"):
        tiny().insert("penultimate", nn.Identity(), {})


def test_a_student_takes_the_layers_once() -> None:
    student, teacher, _ = pair()
    with pytest.raises(ShapeError, match="has a KD layer at its intermediate place already"):
        LetKD.extend(student, teacher.shapes, **SMALL)
