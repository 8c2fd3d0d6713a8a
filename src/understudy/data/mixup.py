"""Mixup and cutmix: every batch mixed with itself in reverse, image i with image B − 1 − i.

    x̃ᵢ = λ xᵢ + (1 − λ) x_{B−1−i}   (mixup)      x̃ᵢ = xᵢ, with a box of x_{B−1−i}   (cutmix)

λ ~ Beta(α, α), one for each optimizer step. The box has the share 1 − λ of the image before it is
cut at the border, and λ becomes what is left. Zhang et al., "mixup", ICLR 2018, arXiv 1710.09412;
Yun et al., "CutMix", ICCV 2019, arXiv 1905.04899; both in the form of timm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from understudy.data._random import counter_hash
from understudy.errors import RecipeError

_USE = -1  # ranks, with which dropout is seeded for the same step, count from 0


@final
@dataclass(frozen=True)
class Blend:
    """How the images of one step are mixed.

    Attributes:
        share: λ, of the image itself.
        box: Rows and columns that come from the other image; None mixes all pixels.
    """

    share: float
    box: tuple[slice, slice] | None = None

    def __call__(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 3 h w"]:
        """The images mixed with themselves in reverse, in place."""
        if self.box is None:
            return images.lerp_(images.flip(0), 1 - self.share)
        part = images[:, :, self.box[0], self.box[1]]
        part.copy_(part.flip(0))
        return images


@final
@dataclass(frozen=True)
class Mixing:
    """Which blends a run draws.

    Attributes:
        mixup: α of mixup; 0 is none.
        cutmix: α of cutmix; 0 is none. Of both, each step takes one with equal chances.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            if value < 0:
                raise RecipeError(f"'data.{name}' is {value}; it must be at least 0.")

    def __bool__(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def blends(self, side: int, *, seed: int, epoch: int, steps: int) -> Sequence[Blend]:
        """The blend of every step of an epoch, a pure function of (seed, epoch, step).

        Args:
            side: Of the images in pixels.
            seed: Of the run.
            epoch: From 0.
            steps: How many there are.
        """
        seeds = counter_hash(seed, epoch, torch.arange(steps), _USE).tolist()
        return [self._drawn(Random(number), side) for number in seeds]

    def _drawn(self, random: Random, side: int) -> Blend:
        cut = random.random() < 0.5 if self.mixup and self.cutmix else bool(self.cutmix)
        alpha = self.cutmix if cut else self.mixup
        share = random.betavariate(alpha, alpha)
        return _boxed(random, share, side) if cut else Blend(share)


def _boxed(random: Random, share: float, side: int) -> Blend:
    length = int(side * (1 - share) ** 0.5)
    rows, columns = (_cut(random.randrange(side), length, side) for _ in range(2))
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return Blend(1 - area / side**2, (rows, columns))


def _cut(centre: int, length: int, side: int) -> slice:
    """A stretch of this length around a place, as far as it lies in the image."""
    return slice(max(centre - length // 2, 0), min(centre + (length + 1) // 2, side))


def mirrored(
    rows: int, *, rank: int = 0, world: int = 1, parts: int = 1
) -> list[Int64[Tensor, " part"]]:
    """Places in a batch that a process takes, one tensor for each of its micro-batches.

    An image and the one it is mixed with, its mirror image in the order of the batch, stay
    together: every part is its own mirror image, and mixed with itself in reverse as the whole.
    """
    first = torch.arange((rows + 1) // 2)[rank::world].flip(0)
    found = []
    for half in first.tensor_split(parts):  # the first parts are larger, and take the middle
        mirror = rows - 1 - half
        found.append(torch.cat([half.flip(0), mirror[mirror != half]]))
    return [part for part in found if len(part)]
