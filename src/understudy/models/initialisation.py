"""How layers begin, as published; each function takes one layer and leaves others alone."""

from torch import nn


def he(layer: nn.Module) -> None:
    """Convolutions from N(0, 2 / fan-out), He et al. 2015; PyTorch's norms start at 1 and 0."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def small_linear(layer: nn.Module) -> None:
    """Linear layers from N(0, 0.01²) with zero bias."""
    if isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=0.01)
        zero_bias(layer)


def zero_bias(layer: nn.Module) -> None:
    """Linear layers with zero bias."""
    if isinstance(layer, nn.Linear) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
