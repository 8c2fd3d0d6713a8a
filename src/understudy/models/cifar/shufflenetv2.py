"""ShuffleNetV2 ×1 for small images: Ma et al., arXiv 1807.11164.

A 1×1 stem of 24 channels, stages of 116, 232 and 464 channels with 4, 8 and 4 blocks, and a 1×1
convolution to 1024.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Block(nn.Module):
    """Shuffle unit: two branches of half the width, concatenated and channel-shuffled.

    The left branch is the identity unless the block is strided.
    """

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        half = width // 2
        right_in = width_in if stride == 2 else half
        self.left = None
        if stride == 2:
            self.left = nn.Sequential(*_filter(width_in, stride), *_mix(width_in, half)[:-1])
        # Both branches share the last activation. It does not change an identity branch, whose
        # channels the block before has activated.
        self.right = nn.Sequential(
            *_mix(right_in, half), *_filter(half, stride), *_mix(half, half)[:-1]
        )
        self.shuffle = nn.ChannelShuffle(2)
        self.act = nn.ReLU()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b width h2 w2"]:
        """Concatenate the branches, shuffle their channels and activate them."""
        left, right = x.chunk(2, 1) if self.left is None else (self.left(x), x)
        out: Tensor = self.act(self.shuffle(torch.cat([left, self.right(right)], 1)))
        return out


class ShuffleNetV2(nn.Module):
    """ShuffleNetV2 of three stages; PyTorch's initialisation, as published for small images."""

    classifier_path = "fc"
    taps: ClassVar = {
        "stem": "stem",
        "stage1/preact": "stages.0.3.act:input",
        "stage1": "stages.0",
        "stage2/preact": "stages.1.7.act:input",
        "stage2": "stages.1",
        "stage3/preact": "stages.2.3.act:input",
        "stage3": "stages.2",
        "penultimate": "fc:input",
    }

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_mix(3, 24))
        self.stages = nn.Sequential()
        width_in = 24
        for width, blocks in ((116, 4), (232, 8), (464, 4)):
            rest = (Block(width, width, 1) for _ in range(blocks - 1))
            self.stages.append(nn.Sequential(Block(width_in, width, 2), *rest))
            width_in = width
        self.head = nn.Sequential(*_mix(width_in, 1024))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(1024, num_classes)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        """Compute the logits."""
        x = self.head(self.stages(self.stem(images)))
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


def _mix(width_in: int, width: int) -> list[nn.Module]:
    """Return a 1×1 convolution with norm and activation."""
    return [nn.Conv2d(width_in, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


def _filter(width: int, stride: int) -> list[nn.Module]:
    """Return a depthwise 3×3 convolution with norm."""
    convolution = nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False)
    return [convolution, nn.BatchNorm2d(width)]


MODELS = {"shufflenetv2": ShuffleNetV2}
