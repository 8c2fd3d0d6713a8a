"""The head of a student that keeps its teacher's classifier: the layers that lead up to it.

Chen et al., "Knowledge Distillation with the Reused Teacher Classifier", arXiv 2203.14001. Nothing
here but torch is needed, so that a deployed student can carry a copy.
"""

from collections.abc import Iterable, Mapping
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

LAST_MAP = "penultimate/map"
"""The feature after which nothing but an average comes, and the classifier."""


@final
class Translator(nn.Module):
    """From the student's last map to the teacher's: 1×1, 3×3 and 1×1 convolution, each BN and ReLU.

    Args:
        inputs: Channels of the student's map.
        outputs: Channels of the teacher's.
        middle: Channels between the convolutions.
        grid: Height and width to which a larger map is averaged first.
    """

    grid: Int[Tensor, "2"]

    def __init__(self, inputs: int, outputs: int, middle: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self._grid = grid
        # A buffer too, so that a state dict tells all there is to know of the layer.
        self.register_buffer("grid", torch.tensor(grid))
        layers: list[nn.Module] = []
        for before, after, size in ((inputs, middle, 1), (middle, middle, 3), (middle, outputs, 1)):
            convolution = nn.Conv2d(before, after, size, padding=size // 2, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
        self.translate = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "b inputs h_x w_x"]) -> Float[Tensor, "b outputs h w"]:
        """The map in the teacher's channels."""
        if x.shape[2:] != self._grid:
            x = F.adaptive_avg_pool2d(x, self._grid)
        return self.translate(x)  # type: ignore[no-any-return]


def translators(state: Mapping[str, Tensor]) -> Iterable[tuple[str, Translator]]:
    """Path and form of the layers that a state dict is of, with new values."""
    mark = ".layer.translate.0.weight"
    for path in [key.removesuffix(mark) for key in state if key.endswith(mark)]:
        middle, inputs = state[path + mark].shape[:2]
        outputs = len(state[f"{path}.layer.translate.6.weight"])
        height, width = state[f"{path}.layer.grid"].tolist()
        yield path, Translator(inputs, outputs, middle, (height, width))


def is_average(
    vector: Float[Tensor, "batch dim"], feature: Float[Tensor, "batch channels h w"]
) -> bool:
    """Whether a vector is the average of a map over its locations, but for rounding."""
    average = feature.mean((2, 3))
    scale = float(average.abs().amax()) if average.numel() else 0.0
    return average.shape == vector.shape and torch.allclose(
        average, vector, rtol=1e-2, atol=1e-2 * scale
    )


def fill(layer: nn.Module, weight: Tensor | None, bias: Tensor | None) -> None:
    """Give a linear layer another's weight and bias, zeros where that has none."""
    assert weight is not None
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    layer.load_state_dict({"weight": weight, "bias": bias})
