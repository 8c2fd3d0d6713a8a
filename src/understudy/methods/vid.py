"""Ahn et al.: "Variational Information Distillation for Knowledge Transfer", CVPR 2019.

arXiv 1904.05835.

    L = Σₗ 1/(2·B·C·N) Σ_{i,c,n} [ (μ(sᵢˡ) − tᵢˡ)²_{cn} / v_c + log v_c ],   v = log(1 + e^ρ) + ε

sˡ and tˡ ∈ R^{B×C×N} are the maps of stage l of student and teacher with N = H·W positions (the
larger map is average-pooled to the size of the smaller), B the batch size, μ three 1×1 convolutions
without bias with ReLU between them, ρ ∈ R^C one trained number for each of the teacher's channels,
ε = 1e-5. This is the negative logarithm of a normal density without its constant, so that it may be
negative.

The form is that of the code base of CRD (github.com/HobbitLong/RepDistiller). mdistiller
(github.com/megvii-research/mdistiller) keeps ρ out of the optimizer, by oversight; here ρ is
trained, as published.
"""

from math import expm1, log
from typing import Annotated, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.batch import Batch
from understudy.config.limits import Range
from understudy.features import Features, Shapes
from understudy.functional import batch_mean
from understudy.methods._maps import MapMethod, match_maps, to_smaller_size
from understudy.methods._projectors import map_shape

MIN_VARIANCE = 1e-5
"""ε of the equation."""


def vid(
    mean: Float[Tensor, "batch channels height width"],
    teacher: Float[Tensor, "batch channels height width"],
    log_scale: Float[Tensor, " channels"],
) -> Float[Tensor, " batch"]:
    """Compute the negative log density of the teacher's map, averaged over its elements."""
    variance = F.softplus(log_scale) + MIN_VARIANCE
    # Averaged over positions first, as v is one number per channel.
    error = (mean - teacher).square().mean((2, 3))
    return (error / variance + variance.log()).mean(1) / 2


@final
class VID(MapMethod):
    """Variational information: the student's maps predict a density with the teacher's maps likely.

    Published weight: 1, with weight 1 on the task loss.

    Args:
        student: Shapes of the student; needs maps.
        teacher: Shapes of the teacher; needs maps.
        stages: Maps to compare; default: all stages, matched from the deepest backwards. If the
            networks' names differ: 'stage2:stage3', the student's first.
        variance: Initial v.
    """

    published_weight: ClassVar[float] = 1.0

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        stages: tuple[str, ...] = (),
        variance: Annotated[float, Range(above=MIN_VARIANCE, most=500)] = 5.0,
    ) -> None:
        super().__init__(student, teacher)
        self.pairs = match_maps(student, teacher, stages)
        widths = [(map_shape(student, s)[0], map_shape(teacher, t)[0]) for s, t in self.pairs]
        # The inverse of v = log(1 + e^ρ) + ε.
        rho = log(expm1(variance - MIN_VARIANCE))
        self.means = nn.ModuleList(_mean(*channels) for channels in widths)
        self.log_scales = nn.ParameterList(torch.full((outputs,), rho) for _, outputs in widths)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        levels = []
        compared = self.paired_maps(student, teacher)
        for mean, log_scale, stage in zip(self.means, self.log_scales, compared, strict=True):
            s, t = to_smaller_size(*stage)
            levels.append(vid(mean(s), t, log_scale))
        return batch_mean(torch.stack(levels).sum(0))


def _mean(student: int, teacher: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(student, teacher, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(teacher, teacher, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(teacher, teacher, 1, bias=False),
    )
