"""How the last map of a network becomes the vector that enters its classifier.

`gap` is the mean over the locations (global average pooling), `gmp` the maximum, `gwp` the mean of
both: Wang, Ge & Wu, "Distilling Knowledge by Mimicking Features", arXiv 2011.01424. What is put in
are layers of torch and timm without weights, so that a state dict keeps its names:

- a network of timm is built with its own `global_pool`;
- where a layer averages the map, it is replaced: `resnet.avgpool = nn.AdaptiveMaxPool2d(1)`;
- where a function does, the layer goes behind the modules that give the map, and the function then
  averages a single location: `mobilenet.features.append(nn.AdaptiveMaxPool2d(1))`.
"""

from typing import Literal

import torch
from timm.layers import AdaptiveAvgMaxPool2d
from torch import Tensor, nn

from understudy.errors import NetworkError
from understudy.layers.reused_head import LAST_MAP
from understudy.models import insertion_points
from understudy.models.taps import attach, first_tensor, is_channels_last, run, still

Pool = Literal["", "gap", "gmp", "gwp"]
"""A pooling, or as the network has it."""

TIMM = {"gap": "avg", "gmp": "max", "gwp": "avgmax"}
"""timm's names."""


def put(module: nn.Module, pool: Pool, images: Tensor, name: str) -> None:
    """Let the classifier of a network that averages its last map read another pooling of it.

    Args:
        module: Changed in place.
        pool: What to read.
        images: As the module wants them.
        name: What errors call it.

    Raises:
        NetworkError: The classifier reads more than the average of a map, or there is no place.
    """
    with still(module):
        path = insertion_points.find(module, images).get(LAST_MAP, "")
        averaging = averages(module, path, images) if path else False
        layer = _averaging(module, path, images) if averaging else ""
    body = module.get_submodule(path)
    if not averaging or not (layer or isinstance(body, nn.Sequential)):
        raise NetworkError(
            f"{name} has no average of a last map that the pooling {pool!r} could replace: use a "
            "network that ends in one and a classifier, or leave `pool` out."
        )
    if pool == "gap":
        return
    pooling = nn.AdaptiveMaxPool2d(1) if pool == "gmp" else AdaptiveAvgMaxPool2d(1)
    if layer:
        module.set_submodule(layer, pooling)
    elif isinstance(body, nn.Sequential):
        body.append(pooling)


def averages(module: nn.Module, place: str, images: Tensor) -> bool:
    """Whether nothing but the mean over the locations of the map at a place matters to the output.

    Args:
        module: In eval mode.
        place: Of a module that gives a map.
        images: As the module wants them.
    """

    def flatten(module: nn.Module, args: object, kwargs: object, x: Tensor) -> Tensor:
        last = is_channels_last(x.shape)
        return x.mean((1, 2) if last else (2, 3), keepdim=True).expand_as(x).contiguous()

    full = run(module, images)
    handle = attach(module, place, flatten)
    flat = run(module, images)
    handle.remove()
    return torch.allclose(flat, full, rtol=1e-3, atol=1e-4 * float(full.abs().max()))


def _averaging(module: nn.Module, path: str, images: Tensor) -> str:
    """Path of the layer that averages the map which the module at `path` gives; "" if none does."""
    maps: list[Tensor | None] = []
    found: list[str] = []

    def note(candidate: str, given: object) -> None:
        tensor = first_tensor(given)
        if maps and maps[0] is not None and tensor is not None and tensor.shape == maps[0].shape:
            found.append(candidate)

    handles = [attach(module, path, lambda m, args, kwargs, x: maps.append(first_tensor(x)))]
    handles += [
        attach(module, f"{name}:input", lambda m, args, kwargs, name=name: note(name, args))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size in (1, (1, 1))
    ]
    run(module, images)
    for handle in handles:
        handle.remove()
    return found[-1] if found else ""
