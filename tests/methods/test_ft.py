"""Factor transfer against plain loops, and the training of its paraphraser."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.support.forms import random, shapes
from tests.vectors.build import Outputs
from understudy.errors import Diverged, RecipeError, ShapeError
from understudy.methods.ft import FT, autoencoder, ft

OURS, THEIRS = {"stage1": (3, 4, 4)}, {"stage1": (6, 4, 4)}


def built(**hyper: Any) -> FT:
    return FT(shapes("s", **OURS), shapes("t", **THEIRS), **hyper).double()


def blobs() -> dict[str, Tensor]:
    """Activated maps that vary in two numbers only, so that they can be paraphrased."""
    directions = torch.rand(2, 6, 4, 4, dtype=torch.float64)
    mixture = torch.rand(64, 2, dtype=torch.float64)
    return {"stage1": torch.einsum("bk,kchw->bchw", mixture, directions)}


@pytest.mark.parametrize("p2", [1.0, 2.0])
def test_equals_the_formula_in_plain_loops(p2: float) -> None:
    s, t = (torch.randn(3, 2, 2, 2, dtype=torch.float64) for _ in range(2))
    expected = []
    for rows in zip(s, t, strict=True):
        factors = []
        for row in rows:
            raw = [(row.flatten(1)[:, n] ** 2).mean().item() for n in range(4)]
            length = sum(v * v for v in raw) ** 0.5
            factors.append([v / length for v in raw])
        expected.append(sum(abs(a - b) ** p2 for a, b in zip(*factors, strict=True)) / 4)
    assert ft(s, t, 2.0, p2).tolist() == pytest.approx(expected)


def test_the_paraphraser_learns_and_is_then_fixed() -> None:
    maps = blobs()
    method = built(paraphraser_epochs=20)
    method.prepare(Outputs(maps))
    assert not list(method.paraphraser.parameters())
    torch.manual_seed(method.seed)
    fresh = autoencoder(6, 3).double()
    before = F.mse_loss(fresh(maps["stage1"]), maps["stage1"])
    trained = method._train(Outputs(maps))
    after = F.mse_loss(trained(maps["stage1"]), maps["stage1"])
    assert after < 0.5 * before
    weight = trained[0][0].weight
    assert not torch.equal(weight, fresh[0][0].weight)


def test_preparing_again_gives_the_same_paraphraser_and_leaves_the_global_state() -> None:
    method, maps = built(paraphraser_epochs=2), blobs()
    state = torch.get_rng_state()
    method.prepare(Outputs(maps))
    assert torch.equal(torch.get_rng_state(), state)
    first = {k: x.clone() for k, x in method.paraphraser.state_dict().items()}
    torch.rand(1)
    with torch.no_grad():
        method.prepare(Outputs(maps))
    again = method.paraphraser.state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    torch.manual_seed(5)
    assert built().seed != method.seed


def test_says_that_the_paraphraser_diverged() -> None:
    method = built(paraphraser_lr=1e6, paraphraser_epochs=5)
    with pytest.raises(Diverged, match="paraphraser_lr below"):
        method.prepare(Outputs(random(32, **THEIRS)))
    assert not method.prepared


def test_only_the_last_stage_is_compared() -> None:
    both = shapes("net", stage1=(3, 4, 4), stage2=(5, 2, 2))
    method = FT(both, both)
    assert method.reads == ("stage2",)
    assert method.factors == 2
    with pytest.raises(ShapeError, match="one map"):
        FT(both, both, stages=("stage1", "stage2"))


@pytest.mark.parametrize(
    "hyper", [{"rate": 0.0}, {"p1": 0.5}, {"p2": 0.0}, {"paraphraser_epochs": 0}]
)
def test_says_which_number_makes_no_sense(hyper: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=f"'FT.{next(iter(hyper))}' is"):
        built(**hyper)
