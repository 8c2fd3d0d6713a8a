"""Keep some classes of a network in a given order: the rows of the layers of its logits."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.errors import NetworkError
from understudy.models.taps import first_tensor

Layer = nn.Linear | nn.Conv2d
Pick = Callable[[Any], Tensor | None]


@torch.no_grad()
def select_rows(
    module: nn.Module,
    classifier: str,
    rows: Sequence[int],
    images: Float[Tensor, "images channels height width"],
    pick: Pick = first_tensor,
) -> None:
    """Replace the classifier's rows by some of them, in place.

    The result is verified: where other layers take part, such as the second head of a distilled
    transformer, all layers with an output for each class are tried together.

    Args:
        module: The network.
        classifier: Path of its classifier.
        rows: Present number of each class to keep.
        images: Some images as the module takes them.
        pick: Returns the logits of the module's output.

    Raises:
        NetworkError: The logits are not those of the kept classes; the module is unchanged.
    """
    before = _logits(module, images, pick)
    count, named = before.shape[1], dict(module.named_modules())
    of_classes = [m for m in named.values() if isinstance(m, Layer) and len(m.weight) == count]
    head = named.get(classifier)
    for layers in ([head] if isinstance(head, Layer) else [], of_classes):
        saved = [(layer, dict(layer.named_parameters(recurse=False))) for layer in layers]
        for layer in layers:
            _set(layer, {k: _chosen(p, rows) for k, p in layer.named_parameters(recurse=False)})
        if layers and _equal(module, images, before[:, list(rows)], pick):
            return
        for layer, parameters in saved:
            _set(layer, parameters)
    raise NetworkError(
        f"The classes of {type(module).__name__} cannot be put in another order: its logits are "
        "not the output of linear layers with a row for each class."
    )


def _chosen(parameter: nn.Parameter, rows: Sequence[int]) -> nn.Parameter:
    return nn.Parameter(parameter.detach()[list(rows)], parameter.requires_grad)


def _set(layer: Layer, parameters: dict[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        setattr(layer, name, parameter)
    attribute = "out_features" if isinstance(layer, nn.Linear) else "out_channels"
    setattr(layer, attribute, len(layer.weight))


def _equal(module: nn.Module, images: Tensor, expected: Tensor, pick: Pick) -> bool:
    try:
        actual = _logits(module, images, pick)
    except RuntimeError:  # a layer behind the classifier takes all classes
        return False
    return actual.shape == expected.shape and torch.allclose(actual, expected, 1e-3, 1e-4)


def _logits(module: nn.Module, images: Tensor, pick: Pick) -> Tensor:
    output = pick(module(images))
    assert output is not None  # the constructor of `Network` refuses such modules
    return output
