"""ShuffleNet for small images: Zhang et al., arXiv 1707.01083, three groups.

A 1×1 stem of 24 channels and stages of 240, 480 and 960 channels with 4, 8 and 4 blocks.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Block(nn.Module):
    """Shuffle unit: grouped 1×1 convolution, channel shuffle, depthwise 3×3, grouped 1×1.

    The input is added; with stride 2 the pooled input is concatenated instead.
    """

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        # A strided block concatenates its input, so that its branch computes the other channels.
        computed = width - width_in if stride == 2 else width
        narrow = computed // 4
        # The stem's 24 channels are too few to be split into groups.
        groups = 1 if width_in == 24 else 3
        self.enter = nn.Sequential(
            nn.Conv2d(width_in, narrow, 1, groups=groups, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.ChannelShuffle(groups),
        )
        self.filter = nn.Sequential(
            nn.Conv2d(narrow, narrow, 3, stride, 1, groups=narrow, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
        )
        self.leave = nn.Sequential(
            nn.Conv2d(narrow, computed, 1, groups=3, bias=False), nn.BatchNorm2d(computed)
        )
        self.shrink = nn.AvgPool2d(3, 2, 1) if stride == 2 else None
        self.act = nn.ReLU()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b width h2 w2"]:
        """Compute the activated sum of branch and input, or their concatenation if strided."""
        y = self.leave(self.filter(self.enter(x)))
        joined = y + x if self.shrink is None else torch.cat([y, self.shrink(x)], 1)
        out: Tensor = self.act(joined)
        return out


class ShuffleNetV1(nn.Module):
    """ShuffleNet of three stages; PyTorch's initialisation, as published for small images.

    Args:
        num_classes: Number of classes.
        stages: Channels and number of blocks of each stage.
    """

    classifier_path = "fc"

    def __init__(
        self,
        num_classes: int,
        *,
        stages: tuple[tuple[int, int], ...] = ((240, 4), (480, 8), (960, 4)),
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.stages = nn.Sequential()
        self.taps = {"stem": "stem", "penultimate": "fc:input"}
        width_in = 24
        for width, blocks in stages:
            rest = (Block(width, width, 1) for _ in range(blocks - 1))
            self.stages.append(nn.Sequential(Block(width_in, width, 2), *rest))
            stage = len(self.stages)
            self.taps[f"stage{stage}/preact"] = f"stages.{stage - 1}.{blocks - 1}.act:input"
            self.taps[f"stage{stage}"] = f"stages.{stage - 1}"
            width_in = width
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width_in, num_classes)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        """Compute the logits."""
        logits: Tensor = self.fc(self.pool(self.stages(self.stem(images))).flatten(1))
        return logits


MODELS = {"shufflenetv1": ShuffleNetV1}
