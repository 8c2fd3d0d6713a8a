"""Optimizers: torch's two exactly as before, timm's by name, groups of rates and decay."""

import io
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from tests.support.papers import as_in_papers
from tests.support.small_runs import trainer_of
from understudy.config.recipe import Recipe
from understudy.errors import RecipeError
from understudy.experiment import build
from understudy.training.optimizers import fits_a_graph, make_optimizer

IMAGES = torch.rand(6, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(4, 3))


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[Tensor]:
    for step in steps:
        model(IMAGES[step]).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_those_of_the_papers_are_torchs_to_the_bit(name: str) -> None:
    keys: dict[str, Any] = {"lr": 0.1, "weight_decay": 5e-4}
    one, other = network(), network()
    own = make_optimizer(one, as_in_papers(optimizer=name, **keys))
    if name == "sgd":
        plain: torch.optim.Optimizer = SGD(other.parameters(), momentum=0.9, fused=True, **keys)
    else:
        plain = AdamW(other.parameters(), fused=True, **keys)
    pairs = zip(stepped(one, own, range(3)), stepped(other, plain, range(3)), strict=True)
    assert all(torch.equal(x, y) for x, y in pairs)
    assert fits_a_graph(own)


@pytest.mark.parametrize(
    "name", ["lion", "timm:sgd", "timm:lamb", "adafactor", "muon", "lookahead_adamw", "adan"]
)
def test_those_of_timm_go_on_exactly(name: str) -> None:
    training = as_in_papers(optimizer=name, lr=1e-3, decay_norms=False)
    whole, half, rest = network(), network(), network()
    expected = stepped(whole, make_optimizer(whole, training), range(6))
    optimizer = make_optimizer(half, training)
    stepped(half, optimizer, range(3))
    torch.save([half.state_dict(), optimizer.state_dict()], file := io.BytesIO())
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    rest.load_state_dict(weights)
    optimizer = make_optimizer(rest, training)
    optimizer.load_state_dict(state)
    found = stepped(rest, optimizer, range(3, 6))
    assert all(torch.equal(x, y) for x, y in zip(expected, found, strict=True))
    fresh = network().parameters()
    assert not all(torch.equal(x, y) for x, y in zip(expected, fresh, strict=True))
    # timm's `sgd` is torch's class.
    assert fits_a_graph(optimizer) == (name == "timm:sgd")


@pytest.mark.parametrize("name", ["sgd", "adamw", "lion"])
def test_norms_and_biases_keep_their_size_on_request(name: str) -> None:
    training = as_in_papers(optimizer=name, decay_norms=False, weight_decay=0.1)
    groups = make_optimizer(network(), training).param_groups
    by_decay = {group["weight_decay"]: {p.ndim for p in group["params"]} for group in groups}
    assert by_decay == {0.1: {2, 4}, 0.0: {1}}


def test_layers_below_learn_more_slowly() -> None:
    model = timm.create_model("test_vit", num_classes=3)
    training = as_in_papers(optimizer="adamw", layer_decay=0.5, decay_norms=False)
    optimizer = make_optimizer(model, training)
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    named = dict(model.named_parameters())
    assert scale[id(named["head.weight"])] == 1.0
    assert (
        scale[id(named["patch_embed.proj.weight"])] < scale[id(named["blocks.1.attn.qkv.weight"])]
    )
    assert not fits_a_graph(optimizer)
    undecayed = [g["params"] for g in optimizer.param_groups if not g["weight_decay"]]
    assert any(p is named["pos_embed"] for group in undecayed for p in group)


def test_rates_are_scaled_in_every_step_and_methods_are_trained_too(tiny: Recipe) -> None:
    keys = {"student": {"name": "timm:test_vit", "options": {"img_size": 32}, "size": 32}}
    keys |= {"training.layer_decay": 0.5, "training.optimizer": "adamw", "training.epochs": 1}
    recipe = Recipe.load(tiny, {**keys, "data.images": 100, "methods": {"pefd": {}}})
    trainer = trainer_of(build.experiment(recipe), recipe)
    before = [p.detach().clone() for p in trainer.distiller.trainable.methods.parameters()]
    (epoch,) = trainer.fit()
    for group in trainer.optimizer.param_groups:
        assert group["lr"] == pytest.approx(epoch.lr * group["lr_scale"])
    after = list(trainer.distiller.trainable.methods.parameters())
    assert before
    assert not any(torch.equal(x, y) for x, y in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"optimizer": "lionn"}, r"no optimizer 'lionn' \(did you mean 'lion'\?\)"),
        ({"optimizer": "adahessian"}, "second derivatives"),
        ({"optimizer": "kron"}, "draws random numbers"),
        ({"optimizer": "fusedsgd"}, "cannot be made"),
        ({"optimizer_options": {"beta": 1}}, "unexpected keyword argument 'beta'"),
        ({"optimizer_options": {"lr": 1}}, r"by the key training\.lr"),
        ({"layer_decay": 0.5}, "tells the order of its layers"),
    ],
)
def test_what_cannot_be_made_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        make_optimizer(network(), as_in_papers(**keys))


def test_options_reach_the_optimizer() -> None:
    training = as_in_papers(optimizer="adamw", optimizer_options={"betas": [0.8, 0.9]})
    assert make_optimizer(network(), training).param_groups[0]["betas"] == (0.8, 0.9)
