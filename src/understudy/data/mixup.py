"""Mixup and cutmix: every batch mixed with itself in reverse, image i with image B − 1 − i.

    x̃ᵢ = λ xᵢ + (1 − λ) x_{B−1−i}   (mixup)      x̃ᵢ = xᵢ, with a box of x_{B−1−i}   (cutmix)

λ ~ Beta(α, α), drawn once per optimizer step. The box of cutmix has the share 1 − λ of the image
before it is clipped at the border; λ is then set to the share that is left of xᵢ. Zhang et al.,
"mixup", ICLR 2018, arXiv 1710.09412; Yun et al., "CutMix", ICCV 2019, arXiv 1905.04899; both in the
form of timm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from random import Random
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from understudy.config.image_size import Size, sides
from understudy.config.limits import MixingShape
from understudy.config.schema import convert
from understudy.data._random import counter_hash

# The trainer seeds dropout by (seed, epoch, step, rank), and ranks count from 0.
_USE = -1


@final
@dataclass(frozen=True)
class Blend:
    """How the images of one step are mixed.

    Attributes:
        share: λ, the share of the image itself.
        box: Rows and columns that are copied from the other image (cutmix); None blends all pixels
            (mixup).
    """

    share: float
    box: tuple[slice, slice] | None = None

    def __call__(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 3 h w"]:
        """Mix the batch with itself in reverse, in place, and return it."""
        if self.box is None:
            return images.lerp_(images.flip(0), 1 - self.share)
        patch = images[:, :, self.box[0], self.box[1]]
        patch.copy_(patch.flip(0))
        return images


@final
@dataclass(frozen=True)
class Mixing:
    """Settings of mixup and cutmix; false if both are off.

    Attributes:
        mixup: α of mixup; 0 switches it off.
        cutmix: α of cutmix; 0 switches it off. With both on, each step takes either with equal
            probability.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            convert(MixingShape, value, f"data.{name}")

    def __bool__(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def blends(self, size: Size, *, seed: int, epoch: int, steps: int) -> Sequence[Blend]:
        """Draw the blend of every step of an epoch, each a pure function of (seed, epoch, step).

        Args:
            size: Size of the images in pixels.
            seed: Seed of the run.
            epoch: Number of the epoch, from 0.
            steps: Number of steps in the epoch.
        """
        seeds = counter_hash(seed, epoch, torch.arange(steps), _USE).tolist()
        return [self._draw(Random(number), sides(size)) for number in seeds]

    def _draw(self, random: Random, size: tuple[int, int]) -> Blend:
        cut = random.random() < 0.5 if self.mixup and self.cutmix else bool(self.cutmix)
        alpha = self.cutmix if cut else self.mixup
        share = random.betavariate(alpha, alpha)
        return _cutmix(random, share, size) if cut else Blend(share)


def _cutmix(random: Random, share: float, size: tuple[int, int]) -> Blend:
    part = (1 - share) ** 0.5
    rows, columns = (_clipped(random.randrange(side), int(side * part), side) for side in size)
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return Blend(1 - area / prod(size), (rows, columns))


def _clipped(centre: int, length: int, side: int) -> slice:
    """Return the interval of this length and centre, clipped to the image."""
    return slice(max(centre - length // 2, 0), min(centre + (length + 1) // 2, side))


def mirrored_rows(
    rows: int, *, rank: int = 0, world: int = 1, parts: int = 1
) -> list[Int64[Tensor, " part"]]:
    """Return the rows of a batch that a process takes, one tensor for each micro-batch.

    Row i and the row it is mixed with, rows − 1 − i, stay together: every micro-batch is symmetric,
    and mixing it with itself in reverse gives the same images as mixing the whole batch.

    Args:
        rows: Images in the batch of all processes.
        rank: Number of this process.
        world: Number of processes.
        parts: Number of micro-batches; empty ones are left out.
    """
    first_half = torch.arange((rows + 1) // 2)[rank::world].flip(0)
    micro_batches = []
    # tensor_split makes the first parts larger; they take the middle row, which is its own pair.
    for half in first_half.tensor_split(parts):
        mirror = rows - 1 - half
        micro_batches.append(torch.cat([half.flip(0), mirror[mirror != half]]))
    return [part for part in micro_batches if len(part)]
