"""Deployment cost of a network: parameters, operations and time, with and without added layers."""

import time
from dataclasses import asdict, dataclass
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from understudy.layers.kd_layer import without_layers
from understudy.layers.reused_head import Translator
from understudy.models.base import Wrapped
from understudy.models.network import DEFAULT_SIZE, Network

_REPEATS = 15
_SECONDS = 0.5
"""Repeats stop once they have taken this long in total, but not before the third."""


@dataclass(frozen=True)
class Cost:
    """Cost of the plain network in evaluation mode, for one image.

    Attributes:
        parameters: Number of parameters.
        macs: Multiply-accumulate operations of convolutions and matrix products.
        image_ms: Median time, in milliseconds.
    """

    parameters: int
    macs: int
    image_ms: float


def cost(network: Network) -> Cost:
    """Measure the cost of the network at its own input size, on the device it is on."""
    return _cost(network.plain(), _image(network))


def bare_cost(network: Network) -> Cost | None:
    """Measure the cost without the layers that a method inserted; None if there are none."""
    plain = network.plain()
    bare = _without_layers(plain, network)
    return None if bare is plain else _cost(bare, _image(network))


def layers_cost(network: Network) -> dict[str, dict[str, float]] | None:
    """Measure a student with its inserted layers (`student`) and without them (`plain`).

    None for a student that has none.
    """
    plain = bare_cost(network)
    return None if plain is None else {"student": asdict(cost(network)), "plain": asdict(plain)}


def macs(network: Wrapped) -> int:
    """Count the multiply-accumulate operations of a network on one image.

    Without the layers that a method inserted: the number is the same for every method.
    """
    plain, parameter = _without_layers(network.plain(), network), next(network.parameters())
    if isinstance(network, Network):
        return count_macs(plain, _image(network))
    return count_macs(plain, [torch.zeros(3, DEFAULT_SIZE, DEFAULT_SIZE).to(parameter)])


@torch.no_grad()
def count_macs(module: nn.Module, images: Tensor | list[Tensor]) -> int:
    """Count the multiply-accumulate operations of a plain module on some images."""
    counter = FlopCounterMode(display=False)
    with counter:
        module(images)
    # The counter counts a multiplication and its addition as two operations.
    return counter.get_total_flops() // 2


def num_parameters(module: nn.Module) -> int:
    """Return the number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def _without_layers(plain: nn.Module, network: Wrapped) -> nn.Module:
    """Return a copy without inserted layers; the module itself if it has none.

    A classifier behind a translator has the width of the teacher's map: without the translator it
    is one that reads the student's own.
    """
    bare = without_layers(plain)
    for module in plain.modules():
        if isinstance(module, Translator) and isinstance(network, Network):
            wide = bare.get_submodule(network.classifier)
            assert isinstance(wide, nn.Linear)
            narrow = nn.Linear(module.inputs, wide.out_features, wide.bias is not None)
            bare.set_submodule(network.classifier, narrow.to(wide.weight))
    return bare


def _image(network: Network) -> Tensor:
    parameter = next(network.parameters())
    return torch.zeros(1, network.input.channels, *network.example_size).to(parameter)


@torch.no_grad()
def _cost(module: nn.Module, image: Tensor) -> Cost:
    return Cost(
        parameters=num_parameters(module),
        macs=count_macs(module, image),
        image_ms=_milliseconds(module, image),
    )


def _milliseconds(module: nn.Module, image: Tensor) -> float:
    times: list[float] = []
    while len(times) < 3 or (len(times) < _REPEATS and sum(times) < 1000 * _SECONDS):
        _synchronise(image.device)
        start = time.perf_counter()
        module(image)
        _synchronise(image.device)
        times.append(1000 * (time.perf_counter() - start))
    return median(times)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
