"""VGG with batch norm for small images: Simonyan & Zisserman, arXiv 1409.1556.

Five groups of 3×3 convolutions of 64, 128, 256, 512 and 512 channels, pooled after the first three
(and after the fourth if the images are 64 pixels wide), then averaged: no hidden linear layers.
"""

from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from understudy.models.initialisation import he, small_linear


class VGG(nn.Module):
    """VGG without hidden linear layers.

    Args:
        num_classes: Number of classes.
        convolutions: Number of convolutions in each of the five groups.
    """

    classifier_path = "fc"

    def __init__(self, num_classes: int, *, convolutions: tuple[int, ...]) -> None:
        super().__init__()
        widths = (3, 64, 128, 256, 512, 512)
        self.groups = nn.ModuleList(
            _group(widths[i], widths[i + 1], count) for i, count in enumerate(convolutions)
        )
        self.shrink = nn.MaxPool2d(2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], num_classes)
        self.pooled: int | None = None
        self.taps = {"stem": "groups.0", "penultimate": "fc:input"}
        for stage, count in enumerate(convolutions[1:], 1):
            self.taps[f"stage{stage}/preact"] = f"groups.{stage}.{3 * count - 1}:input"
            self.taps[f"stage{stage}"] = f"groups.{stage}"
        self.apply(self.initialise)

    @staticmethod
    def initialise(layer: nn.Module) -> None:
        """Initialise convolutions He-normal, linear layers from N(0, 0.01²), every bias zero."""
        he(layer)
        small_linear(layer)

    def fix_size(self, size: int) -> None:
        """Take images of this width alone, so that no choice is left to a pass."""
        self.pooled = _pooled(size)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        """Compute the logits."""
        pooled = self.pooled or _pooled(images.shape[-1])
        x = images
        for number, group in enumerate(self.groups):
            x = group(self.shrink(x) if 0 < number <= pooled else x)
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


def _pooled(side: int) -> int:
    """Return how many groups come after a max-pool."""
    return 4 if side == 64 else 3


def _group(width_in: int, width: int, count: int) -> nn.Sequential:
    """Build `count` 3×3 convolutions with norm and activation."""
    layers = nn.Sequential()
    for number in range(count):
        layers.append(nn.Conv2d(width if number else width_in, width, 3, padding=1))
        layers.append(nn.BatchNorm2d(width))
        layers.append(nn.ReLU())
    return layers


MODELS = {
    "vgg8": partial(VGG, convolutions=(1, 1, 1, 1, 1)),
    "vgg11": partial(VGG, convolutions=(1, 1, 2, 2, 2)),
    "vgg13": partial(VGG, convolutions=(2, 2, 2, 2, 2)),
    "vgg16": partial(VGG, convolutions=(2, 2, 3, 3, 3)),
    "vgg19": partial(VGG, convolutions=(2, 2, 4, 4, 4)),
}
