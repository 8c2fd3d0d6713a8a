"""Published initialisations; each function initialises layers of its type, and no others."""

from torch import nn


def he(layer: nn.Module) -> None:
    """Initialise a convolution from N(0, 2 / fan-out), with zero bias: He et al. 2015.

    Norms need none: PyTorch starts them at weight 1 and bias 0.
    """
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def small_linear(layer: nn.Module) -> None:
    """Initialise a linear layer from N(0, 0.01²), with zero bias."""
    if isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=0.01)
        zero_bias(layer)


def zero_bias(layer: nn.Module) -> None:
    """Set the bias of a linear layer to zero."""
    if isinstance(layer, nn.Linear) and layer.bias is not None:
        nn.init.zeros_(layer.bias)


def initialise_like(module: nn.Module, layer: nn.Module) -> None:
    """Initialise a layer as a network does its own; else PyTorch's default stays."""
    initialise = getattr(module, "initialise", None)
    if initialise is not None:
        initialise(layer)
