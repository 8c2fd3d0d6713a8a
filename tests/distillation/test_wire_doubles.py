"""Networks in float64: every method computes its loss with them, whichever of the two is one."""

import pytest
import torch
from torch import nn

from tests.distillation.small_networks import images
from understudy import methods
from understudy.distillation.wire import wire
from understudy.errors import ShapeError

IMAGES, LABELS = images(8, 3, 32, 32), torch.arange(8) % 4


REFUSED = {"deit", "frs"}
"""Methods for other networks: with named maps before the activation, with tokens, for detectors."""


def stages(seed: int) -> nn.Sequential:
    """Build a network of three stages."""
    torch.manual_seed(seed)
    blocks = [
        nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())
        for a, b in ((3, 8), (8, 8), (8, 16), (16, 16))
    ]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


def loss(name: str, ours: torch.dtype, theirs: torch.dtype, given: torch.dtype) -> torch.Tensor:
    student = stages(1).to(ours)
    distiller = wire(student, stages(2).to(theirs), {name: 1}, example=IMAGES, seed=0).train()
    batch = IMAGES.to(given), LABELS
    distiller.prepare([batch])
    losses = distiller(*batch)
    distiller.total(losses, 5).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in student.parameters())
    return losses[name].detach()


@pytest.mark.parametrize("name", methods.names())
def test_the_loss_is_that_of_single_precision(name: str) -> None:
    single, double = torch.float32, torch.float64
    if name in REFUSED:
        with pytest.raises(ShapeError):
            loss(name, single, single, single)
        return
    expected = loss(name, single, single, single)
    for ours, theirs in ((single, double), (double, single), (double, double)):
        for given in (single, double):
            value = loss(name, ours, theirs, given)
            assert torch.allclose(value.float(), expected, rtol=1e-3, atol=1e-5), (ours, theirs)


def test_a_method_of_double_networks_is_double() -> None:
    distiller = wire(stages(1).double(), stages(2), {"pefd": 1}, example=IMAGES, seed=0)
    dtypes = {p.dtype for p in distiller.trainable.methods.parameters()}
    assert dtypes == {torch.float64}
