"""Gradients of depthwise convolutions in bf16 on a CPU, which are computed in fp32."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy import models
from understudy.models.depthwise_gradients import attach

WIDTH = 6
SLOW: dict[str, tuple[dict[str, Any], int]] = {
    "strided": ({"kernel_size": 3, "stride": 2, "padding": 1}, 7),
    "strided in one direction": ({"kernel_size": (3, 1), "stride": (2, 1), "padding": (1, 0)}, 6),
    "large kernel": ({"kernel_size": 5, "padding": 2}, 6),
    "large kernel, small map": ({"kernel_size": 7, "padding": 3}, 2),
    "map of 1 × 1": ({"kernel_size": 3, "padding": 1}, 1),
    "map of 2 × 2": ({"kernel_size": 3, "padding": 1}, 2),
    "flat kernel": ({"kernel_size": (1, 3), "padding": (0, 1)}, 2),
    "dilated": ({"kernel_size": 3, "dilation": 2, "padding": 2}, 6),
}
FAST: dict[str, tuple[dict[str, Any], int]] = {"3 × 3": ({"kernel_size": 3, "padding": 1}, 6)}


def depthwise(**options: Any) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(WIDTH, WIDTH, groups=WIDTH, **options)


def gradients(layer: nn.Module, x: Tensor, *, bf16: bool = True) -> tuple[Tensor, list[Tensor]]:
    """Output, and gradients of input, weight and bias."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        y = layer(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    y.backward(weights.to(y.dtype))
    return y, [tensor.grad for tensor in (x, *layer.parameters()) if tensor.grad is not None]


def in_double(layer: nn.Conv2d, x: Tensor) -> list[Tensor]:
    """Gradients in float64 of operands rounded to bf16: what bf16 kernels compute exactly."""
    exact = deepcopy(layer).double()
    for parameter in exact.parameters():
        parameter.data.copy_(parameter.data.bfloat16())
    return gradients(exact, x.bfloat16().double(), bf16=False)[1]


@pytest.mark.parametrize(("options", "side"), SLOW.values(), ids=SLOW)
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_of_the_layer(options: dict[str, Any], side: int, bias: bool) -> None:
    plain = depthwise(**options, bias=bias)
    x = torch.randn(4, WIDTH, side, side)
    exact = in_double(plain, x)
    output, rounded = gradients(deepcopy(plain), x)
    attach(plain)
    same, [d_input, *d_parameters] = gradients(plain, x)
    assert same.grad_fn is not None
    assert "Fp32Gradient" in same.grad_fn.name()
    assert torch.equal(same, output)
    assert [g.dtype for g in (d_input, *d_parameters)] == [g.dtype for g in rounded]
    # Nothing but the gradient of the input is rounded to bf16, once.
    torch.testing.assert_close(d_input.double(), exact[0].bfloat16().double(), rtol=1e-2, atol=1e-3)
    for mine, right in zip(d_parameters, exact[1:], strict=True):
        torch.testing.assert_close(mine.double(), right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "side", "inside"),
    [
        *((options, side, {"bf16": False}) for options, side in SLOW.values()),
        *((options, side, {}) for options, side in FAST.values()),
    ],
)
def test_other_passes_are_untouched(
    options: dict[str, Any], side: int, inside: dict[str, bool]
) -> None:
    layer, x = depthwise(**options), torch.randn(2, WIDTH, side, side)
    attach(layer)
    output, _ = gradients(layer, x, **inside)
    assert output.grad_fn is not None
    assert "Fp32Gradient" not in output.grad_fn.name()


class Padded(nn.Conv2d):
    """A convolution that pads its input itself."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, (0, 1, 0, 1)))


def other_layers() -> Iterator[tuple[str, nn.Module]]:
    given: dict[str, Any] = {"kernel_size": 3, "stride": 2}
    yield "dense", nn.Conv2d(WIDTH, WIDTH, **given)
    yield "grouped", nn.Conv2d(WIDTH, WIDTH, groups=2, **given)
    yield "multiplied", nn.Conv2d(WIDTH, 2 * WIDTH, groups=WIDTH, **given)
    yield "one channel", nn.Conv2d(1, 1, **given)
    yield "reflected", depthwise(padding=1, padding_mode="reflect", **given)
    yield "padding by name", depthwise(padding="same", kernel_size=5)
    yield "subclass", Padded(WIDTH, WIDTH, groups=WIDTH, **given)


@pytest.mark.parametrize("layer", [layer for _, layer in other_layers()])
def test_other_layers_are_untouched(layer: nn.Module) -> None:
    assert attach(layer) == []


def test_a_gradient_has_a_gradient() -> None:
    layer = depthwise(kernel_size=3, stride=2)
    attach(layer)
    x = torch.randn(2, WIDTH, 6, 6, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x).float().square().sum()
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    first.square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.any()


def test_a_frozen_layer_passes_gradients_on_and_gets_none() -> None:
    layer = depthwise(kernel_size=3, stride=2).requires_grad_(False)
    attach(layer)
    _, grads = gradients(layer, torch.randn(2, WIDTH, 6, 6))
    assert len(grads) == 1


def test_a_network_has_the_gradients_and_deploys_none_of_it() -> None:
    torch.manual_seed(0)
    network = models.find("mobilenetv2", num_classes=3)
    module = network.plain().train()
    assert not any(layer._forward_hooks for layer in module.modules())
    assert all(
        type(a) is type(b) for a, b in zip(module.modules(), network.module.modules(), strict=True)
    )
    network.train()
    x = torch.rand(4, 3, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mine, plain = network(x), module(network._normalise(x))
    assert torch.equal(mine, plain)
    mine.float().square().sum().backward()
    plain.float().square().sum().backward()
    for (name, a), b in zip(network.module.named_parameters(), module.parameters(), strict=True):
        assert a.grad is not None, name
        assert b.grad is not None, name
        assert F.cosine_similarity(a.grad.flatten(), b.grad.flatten(), 0) > 0.9, name
