"""ResNets for small images: He et al., "Deep Residual Learning", arXiv 1512.03385, section 4.2.

Depth 6n + 2: a 3×3 stem and three stages of n basic blocks, strides 1, 2, 2. `x4` is the variant
of the distillation papers with widths 32, 64, 128, 256 instead of 16, 16, 32, 64.
"""

from collections import OrderedDict
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from understudy.models.initialisation import he


class Block(nn.Module):
    """Basic block: two 3×3 convolutions and a shortcut, projected if the shape changes."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or width_in != width:
            self.shortcut.append(nn.Conv2d(width_in, width, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(width))
        self.act2 = nn.ReLU()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b width h2 w2"]:
        """Compute the activated sum of branch and shortcut."""
        y = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        out: Tensor = self.act2(y + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """Residual network of three stages.

    Args:
        num_classes: Number of classes.
        depth: 6n + 2.
        widths: Channels of the stem and of the three stages.
    """

    classifier_path = "fc"

    def __init__(
        self, num_classes: int, *, depth: int, widths: tuple[int, ...] = (16, 16, 32, 64)
    ) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        stem, *stages = widths
        self.stem = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, stem, 3, 1, 1, bias=False), bn=nn.BatchNorm2d(stem), act=nn.ReLU()
            )
        )
        self.stages = nn.Sequential()
        for number, width in enumerate(stages):
            width_in = widths[number]
            strides = [min(number + 1, 2)] + [1] * (blocks - 1)
            inputs = [width_in] + [width] * (blocks - 1)
            self.stages.append(
                nn.Sequential(*(Block(i, width, s) for i, s in zip(inputs, strides, strict=True)))
            )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], num_classes)
        self.taps = {"stem": "stem", "penultimate": "fc:input"}
        for number in range(len(stages)):
            self.taps[f"stage{number + 1}/preact"] = f"stages.{number}.{blocks - 1}.act2:input"
            self.taps[f"stage{number + 1}"] = f"stages.{number}"
        self.apply(self.initialise)

    initialise = staticmethod(he)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        """Compute the logits."""
        logits: Tensor = self.fc(self.pool(self.stages(self.stem(images))).flatten(1))
        return logits


_WIDE = (32, 64, 128, 256)
MODELS = {
    **{f"resnet{d}": partial(ResNet, depth=d) for d in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{d}x4": partial(ResNet, depth=d, widths=_WIDE) for d in (8, 32)},
}
