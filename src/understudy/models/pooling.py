"""Pooling of a network's last map to the vector that enters its classifier.

`gap` is the mean over the locations (global average pooling), `gmp` the maximum, `gwp` the mean of
both: Wang, Ge & Wu, "Distilling Knowledge by Mimicking Features", arXiv 2011.01424. The layers that
are put in are those of torch and timm and have no weights, so that a state dict keeps its names:

- a network of timm is built with its own `global_pool`;
- a layer that averages the map is replaced: `resnet.avgpool = nn.AdaptiveMaxPool2d(1)`;
- where a function averages the map, the layer is appended to the modules that compute the map, and
  the function then averages one location: `mobilenet.features.append(nn.AdaptiveMaxPool2d(1))`.
"""

from typing import Literal

import torch
from timm.layers import AdaptiveAvgMaxPool2d
from torch import Tensor, nn

from understudy.errors import NetworkError
from understudy.layers.reused_head import LAST_MAP
from understudy.models import insertion_points
from understudy.models.taps import (
    attach_hook,
    dry_run,
    eval_mode,
    first_tensor,
    is_channels_last,
)

Pool = Literal["", "gap", "gmp", "gwp"]
"""A pooling; "" for the network's own."""

TIMM = {"gap": "avg", "gmp": "max", "gwp": "avgmax"}
"""Pooling → timm's name of it."""


def replace_pooling(module: nn.Module, pool: Pool, images: Tensor, name: str) -> None:
    """Replace the average pooling of a network's last map by another pooling.

    Args:
        module: Changed in place.
        pool: The new pooling.
        images: Two square images as the module takes them.
        name: Name of the network for errors.

    Raises:
        NetworkError: The classifier reads more than the mean of a last map, or the pooling cannot
            be replaced.
    """
    with eval_mode(module):
        path = insertion_points.find(module, images).get(LAST_MAP, "")
        averaged = depends_only_on_mean(module, path, images) if path else False
        layer = _pooling_layer(module, path, images) if averaged else ""
    body = module.get_submodule(path)
    if not averaged or not (layer or isinstance(body, nn.Sequential)):
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


def depends_only_on_mean(module: nn.Module, path: str, images: Tensor) -> bool:
    """Return True if the output depends only on the spatial mean of the map at a path.

    Tested by a second pass in which every location of the map has the mean's value.

    Args:
        module: In evaluation mode.
        path: Path of a submodule that returns a map.
        images: Two square images as the module takes them.
    """

    def flatten(module: nn.Module, args: object, kwargs: object, x: Tensor) -> Tensor:
        dims = (1, 2) if is_channels_last(x.shape) else (2, 3)
        return x.mean(dims, keepdim=True).expand_as(x).contiguous()

    full = dry_run(module, images)
    handle = attach_hook(module, path, flatten)
    flat = dry_run(module, images)
    handle.remove()
    return torch.allclose(flat, full, rtol=1e-3, atol=1e-4 * float(full.abs().max()))


def _pooling_layer(module: nn.Module, path: str, images: Tensor) -> str:
    """Return the path of the layer that averages the map at `path`; "" if there is none."""
    maps: list[Tensor | None] = []
    layers: list[str] = []

    def note(layer: str, arguments: object) -> None:
        tensor = first_tensor(arguments)
        if maps and maps[0] is not None and tensor is not None and tensor.shape == maps[0].shape:
            layers.append(layer)

    handles = [attach_hook(module, path, lambda m, args, kwargs, x: maps.append(first_tensor(x)))]
    handles += [
        attach_hook(module, f"{name}:input", lambda m, args, kwargs, name=name: note(name, args))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size in (1, (1, 1))
    ]
    dry_run(module, images)
    for handle in handles:
        handle.remove()
    return layers[-1] if layers else ""
