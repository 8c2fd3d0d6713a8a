"""Projector of a student that reuses its teacher's classifier (SimKD).

Chen et al., "Knowledge Distillation with the Reused Teacher Classifier", arXiv 2203.14001. This
file needs nothing but torch, so that it can be copied along with a student.
"""

from collections.abc import Iterable, Mapping
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

LAST_MAP = "penultimate/map"
"""Name of the last map, whose spatial average enters the classifier."""


@final
class Translator(nn.Module):
    """Projector of the student's last map: 1×1, 3×3 and 1×1 convolution, each with BN and ReLU.

    Args:
        inputs: Channels of the student's map.
        outputs: Channels of the teacher's map.
        middle: Channels between the convolutions.
        grid: Height and width to which a larger map is average-pooled first.
    """

    grid: Int[Tensor, "2"]

    def __init__(self, inputs: int, outputs: int, middle: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.inputs, self._grid = inputs, grid
        # Also a buffer, so that a state dict alone is enough to rebuild the layer.
        self.register_buffer("grid", torch.tensor(grid))
        layers: list[nn.Module] = []
        for before, after, size in ((inputs, middle, 1), (middle, middle, 3), (middle, outputs, 1)):
            convolution = nn.Conv2d(before, after, size, padding=size // 2, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
        self.translate = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "b inputs h_x w_x"]) -> Float[Tensor, "b outputs h w"]:
        """Project a map to the teacher's channels."""
        # A map of that size stays as it is, bit for bit.
        return self.translate(F.adaptive_avg_pool2d(x, self._grid))  # type: ignore[no-any-return]


def translators_in(state: Mapping[str, Tensor]) -> Iterable[tuple[str, Translator]]:
    """Rebuild the translators of a state dict, without its values: path → layer."""
    suffix = ".layer.translate.0.weight"
    for path in [key.removesuffix(suffix) for key in state if key.endswith(suffix)]:
        middle, inputs = state[path + suffix].shape[:2]
        outputs = len(state[f"{path}.layer.translate.6.weight"])
        height, width = state[f"{path}.layer.grid"].tolist()
        yield path, Translator(inputs, outputs, middle, (height, width))


def is_average(
    vector: Float[Tensor, "batch dim"], feature: Float[Tensor, "batch channels h w"]
) -> bool:
    """Return True if a vector is the spatial average of a map, up to rounding."""
    average = feature.mean((2, 3))
    # Tolerances of half precision, in which a teacher may run, relative to the largest average.
    scale = float(average.abs().amax()) if average.numel() else 0.0
    return average.shape == vector.shape and torch.allclose(
        average, vector, rtol=1e-2, atol=1e-2 * scale
    )


def load_linear(layer: nn.Module, weight: Tensor | None, bias: Tensor | None) -> None:
    """Load a weight and a bias into a linear layer; zeros if there is no bias."""
    assert weight is not None
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    layer.load_state_dict({"weight": weight, "bias": bias})
