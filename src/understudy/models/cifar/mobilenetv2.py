"""MobileNetV2 of half width for small images: Sandler et al., arXiv 1801.04381.

As in the distillation papers: ReLU instead of ReLU6, a stem of stride 2, an expansion by six in all
stages but the first, no dropout. Stages end without an activation: `stage1/preact` is `stage1`.
"""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from understudy.models.initialisation import he, small_linear

_GROUPS = [(8, 1, 1, 1), (12, 2, 1, 6), (16, 3, 2, 6), (32, 4, 2, 6), (48, 3, 1, 6)]
_GROUPS += [(80, 3, 2, 6), (160, 1, 1, 6)]
"""Width, number of blocks, stride and expansion of each group of blocks."""


class Block(nn.Module):
    """Inverted residual block: 1×1 expansion, depthwise 3×3, linear 1×1 projection.

    It has a shortcut if input and output have the same shape.
    """

    def __init__(self, width_in: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = width_in * expansion
        self.branch = nn.Sequential(
            nn.Conv2d(width_in, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.residual = stride == 1 and width_in == width

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b width h2 w2"]:
        """Compute the projected map, without activation."""
        y: Tensor = self.branch(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """MobileNetV2 at half width, with a penultimate vector of width 1280."""

    classifier_path = "fc"
    taps: ClassVar = {
        "stem": "stem",
        "stage1/preact": "groups.1",
        "stage1": "groups.1",
        "stage2/preact": "groups.2",
        "stage2": "groups.2",
        "stage3/preact": "groups.4",
        "stage3": "groups.4",
        "stage4/preact": "groups.6",
        "stage4": "groups.6",
        "penultimate": "fc:input",
    }

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.groups = nn.Sequential()
        width_in = 16
        for width, blocks, stride, expansion in _GROUPS:
            first = Block(width_in, width, stride, expansion)
            rest = (Block(width, width, 1, expansion) for _ in range(blocks - 1))
            self.groups.append(nn.Sequential(first, *rest))
            width_in = width
        self.head = nn.Sequential(
            nn.Conv2d(width_in, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU()
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(1280, num_classes)
        self.apply(self.initialise)

    @staticmethod
    def initialise(layer: nn.Module) -> None:
        """Initialise convolutions He-normal, linear layers from N(0, 0.01²) with zero bias."""
        he(layer)
        small_linear(layer)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        """Compute the logits."""
        x = self.head(self.groups(self.stem(images)))
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


MODELS = {"mobilenetv2": MobileNetV2}
