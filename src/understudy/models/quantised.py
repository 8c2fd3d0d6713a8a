"""Layers that torch has quantised: their weights are packed, and none of them can be trained."""

from torch import nn

from understudy.errors import NetworkError


def is_quantised(layer: nn.Module) -> bool:
    """Return True for a layer with packed weights, and for what converts its numbers."""
    return "quantized" in type(layer).__module__.split(".")


def has_packed_weights(layer: nn.Module) -> bool:
    """Return True for a linear layer or convolution whose weights are packed."""
    return hasattr(layer, "_packed_params")


def refuse_student(module: nn.Module) -> None:
    """Refuse a network with quantised layers as a student.

    Raises:
        NetworkError: It has one.
    """
    for path, layer in module.named_modules():
        if has_packed_weights(layer):
            raise NetworkError(
                f"The student has a quantised layer {path!r}, which cannot be trained: give the "
                "network before its quantisation, and quantise it once it is trained."
            )
