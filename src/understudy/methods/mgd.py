"""Yang et al.: "Masked Generative Distillation", ECCV 2022, arXiv 2205.01529.

    L  = Σₗ 1/B Σᵢ ‖ gˡ( m ⊙ fˡ(sˡᵢ) ) − tˡᵢ ‖²

sˡ, tˡ are maps of level l of student and teacher. f aligns the student's width by a 1×1
convolution, if it differs, and its size by bilinear resizing; m is 0 with probability λ and else 1,
drawn in every step for each channel or for each position; g generates the teacher's map by a 3×3
convolution, ReLU and another 3×3 convolution. The loss is a sum over all entries, which explains
the small weights; it grows with the size of the maps. B is the batch size. Nothing of it needs
labels.

In evaluation nothing is masked, and nothing drawn.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.config.limits import ShareBelowAll
from understudy.features import Features, Shapes
from understudy.functional import batch_mean
from understudy.methods._maps import MapMethod, last_maps
from understudy.methods._projectors import map_shape, resize
from understudy.methods._tokens import aligners

Masked = Literal["channels", "positions"]


def mgd(
    generated: Float[Tensor, "batch channels height width"],
    teacher: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, " batch"]:
    """Sum the squared differences of each image's maps."""
    return (generated - teacher).square().sum((1, 2, 3))


def generator(width: int) -> nn.Sequential:
    """Build g for maps of this width."""
    first, second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
    return nn.Sequential(first, nn.ReLU(), second)


@final
class MGD(MapMethod):
    """Masked generation: from a part of the student's map, the teacher's whole map is generated.

    Published weights: 7e-5 with λ = 0.15 over channels (classification), 2e-5 with λ = 0.65 over
    positions (detection).

    Args:
        student: Shapes of the student; needs maps.
        teacher: Shapes of the teacher; needs maps.
        stages: Maps to compare, such as `stage2:stage3`, the student's first; default: `patches` of
            a network that names it, else its last stage.
        masked: What is masked as a whole.
        share: λ, the share that is masked.
    """

    published_weight: ClassVar[float] = 7e-5
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "detection": {
            "weight": 2e-5,
            "stages": ("p3", "p4", "p5"),
            "masked": "positions",
            "share": 0.65,
        }
    }

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        stages: tuple[str, ...] = (),
        masked: Masked = "channels",
        share: ShareBelowAll = 0.15,
    ) -> None:
        super().__init__(student, teacher)
        self.pairs, self.masked, self.share = last_maps(student, teacher, stages), masked, share
        self.aligners = aligners(student, teacher, self.pairs)
        self.generators = nn.ModuleList(generator(map_shape(teacher, t)[0]) for _, t in self.pairs)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        levels = []
        maps = self.paired_maps(student, teacher)
        for align, generate, (s, t) in zip(self.aligners, self.generators, maps, strict=True):
            aligned = resize(align(s), t.shape[2:])
            levels.append(mgd(generate(aligned * self.mask(aligned)), t))
        return batch_mean(torch.stack(levels).sum(0))

    def mask(self, x: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Draw m: ones and zeros for each channel, or for each position; ones in evaluation."""
        batch, channels, height, width = x.shape
        size = (channels, 1, 1) if self.masked == "channels" else (1, height, width)
        if not self.training:
            return x.new_ones(batch, *size)
        return (torch.rand(batch, *size, device=x.device) >= self.share).to(x.dtype)
