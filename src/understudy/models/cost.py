"""What a network costs where it is deployed, and what layers that stay in it add to that."""

import time
from dataclasses import asdict, dataclass
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from understudy.layers.kd_layer import without_layers
from understudy.models.network import DRY_SIZE, Network

_REPEATS = 15
_SECONDS = 0.5
"""After which a measurement is not repeated any more, once it has been three times."""


@dataclass(frozen=True)
class Cost:
    """Of the plain network, in evaluation mode.

    Attributes:
        parameters: Their number.
        macs: Multiplications with addition of convolutions and matrix products, for one image.
        image_ms: Median time of one image, in milliseconds.
        batch_ms: Median time of a batch, in milliseconds.
        batch: Images in that batch.
    """

    parameters: int
    macs: int
    image_ms: float
    batch_ms: float
    batch: int


def cost(network: Network, *, batch: int = 64) -> Cost:
    """What the network costs at its own input size, on the device where it is."""
    return _cost(network.plain(), _images(network, batch))


def bare_cost(network: Network, *, batch: int = 64) -> Cost | None:
    """The same without the layers that a method has put in; None if there are none."""
    plain = network.plain()
    bare = without_layers(plain)
    return None if bare is plain else _cost(bare, _images(network, batch))


def layers_cost(network: Network) -> dict[str, dict[str, float]] | None:
    """`student` and, without its layers, `plain`; None for a student that keeps none."""
    plain = bare_cost(network)
    return None if plain is None else {"student": asdict(cost(network)), "plain": asdict(plain)}


def num_parameters(module: nn.Module) -> int:
    """Return the number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def _images(network: Network, batch: int) -> Tensor:
    side = network.input.size or DRY_SIZE
    like = next(network.parameters())
    return torch.zeros(batch, len(network.input.mean), side, side).to(like)


@torch.no_grad()
def _cost(module: nn.Module, images: Tensor) -> Cost:
    counter = FlopCounterMode(display=False)
    with counter:
        module(images[:1])
    return Cost(
        parameters=num_parameters(module),
        macs=counter.get_total_flops() // 2,
        image_ms=_milliseconds(module, images[:1]),
        batch_ms=_milliseconds(module, images),
        batch=len(images),
    )


def _milliseconds(module: nn.Module, images: Tensor) -> float:
    times: list[float] = []
    while len(times) < 3 or (len(times) < _REPEATS and sum(times) < 1000 * _SECONDS):
        _wait(images.device)
        began = time.perf_counter()
        module(images)
        _wait(images.device)
        times.append(1000 * (time.perf_counter() - began))
    return median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
