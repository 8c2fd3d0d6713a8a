"""DeiT against plain loops, and on a real network with a distillation token."""

from math import exp, log

import pytest
import timm
import torch

from tests.support.forms import random, shapes
from tests.vectors.build import batch
from understudy.batch import Batch
from understudy.distillation.wire import wire
from understudy.errors import ShapeError
from understudy.methods.deit import DeiT
from understudy.models.network import Network
from understudy.models.preprocessing import Input

TEACHER = shapes("teacher", penultimate=6, logits=3)


def student() -> Network:
    """A small DeiT with a distillation token."""
    torch.manual_seed(0)
    small = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2}
    module = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=3, **small)
    return Network(module, input=Input(size=16), name="small DeiT")


def test_equals_the_formula_in_plain_loops() -> None:
    method = DeiT(shapes("student", logits=3, dist_logits=3), TEACHER)
    ours, theirs = random(5, dist_logits=3)["dist_logits"], random(5, logits=3)["logits"]
    total = 0.0
    for d, t in zip(ours.tolist(), theirs.tolist(), strict=True):
        total += log(sum(exp(x) for x in d)) - d[t.index(max(t))]
    loss = method({"dist_logits": ours}, {"logits": theirs}, batch(5))
    assert loss.item() == pytest.approx(total / 5)


def test_features_of_a_distillation_token() -> None:
    network, images = student().eval(), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        features = network.features(images)
        tokens = network.module.forward_features((images - network._mean) / network._std)
    torch.testing.assert_close(features["penultimate"], (tokens[:, 0] + tokens[:, 1]) / 2)
    module = network.module
    heads = module.head(tokens[:, 0]), module.head_dist(tokens[:, 1])
    torch.testing.assert_close(features["dist_logits"], heads[1])
    torch.testing.assert_close(features["logits"], (heads[0] + heads[1]) / 2)
    assert dict(network.shapes)["dist_logits"] == (3,)


def test_heads_learn_apart_and_are_averaged_in_the_test() -> None:
    network, images = student(), torch.rand(4, 3, 16, 16)
    teacher = student()
    distiller = wire(network, teacher, {"deit": 0.5, "nd": 1.5}, example=images)
    batches = Batch.of(images, torch.tensor([0, 1, 2, 0]))
    distiller.prepare([batches])
    distiller.train()
    module = network.module
    losses = distiller(batches)
    losses["task"].backward(retain_graph=True)
    assert module.head_dist.weight.grad is None
    assert module.head.weight.grad.any()
    module.head.weight.grad = None
    losses["deit"].backward(retain_graph=True)
    assert module.head.weight.grad is None
    assert module.head_dist.weight.grad.any()
    losses["nd"].backward()
    network.eval()
    with torch.no_grad():
        normal = (images - network._mean) / network._std
        torch.testing.assert_close(network.plain()(normal), network(images))
        tokens = module.forward_features(normal)
        heads = module.head(tokens[:, 0]), module.head_dist(tokens[:, 1])
        torch.testing.assert_close(network(images), (heads[0] + heads[1]) / 2)


def test_both_heads_are_made_anew_for_other_classes() -> None:
    network = student()
    network.reset_classifier(7)
    assert network.num_classes == 7
    assert dict(network.shapes)["dist_logits"] == (7,)


def test_refuses_a_student_without_the_token() -> None:
    with pytest.raises(ShapeError, match="distillation token"):
        DeiT(shapes("student", penultimate=4, logits=3), TEACHER)
