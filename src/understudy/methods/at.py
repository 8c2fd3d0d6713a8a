"""Zagoruyko, Komodakis: "Paying More Attention to Attention", ICLR 2017, arXiv 1612.03928.

    L = Σₗ 1/(B·N) Σᵢ ‖ q(sᵢˡ) − q(tᵢˡ) ‖²,     q(x) = v / ‖v‖,   v = 1/C Σ_c |x_c|^p

sˡ ∈ R^{B×C_s×N}, tˡ ∈ R^{B×C_t×N} are the maps of stage l of student and teacher with N = H·W
positions (the larger map is average-pooled to the size of the smaller), v ∈ R^N the attention map,
B the batch size. The mean over positions is that of the code base of CRD
(github.com/HobbitLong/RepDistiller), for which the weight is published; the paper has the sum. A
stage with a single position has no gradient: its attention is always 1.

Differences from that code: a map that is zero everywhere has gradient zero; a power that is not
even takes the absolute value first, as in the paper.
"""

from typing import Annotated, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.batch import Batch
from understudy.config.limits import Range
from understudy.features import Features, Shapes
from understudy.functional import batch_mean
from understudy.methods._maps import MapMethod, attention, match_maps, to_smaller_size


def at(
    student: Float[Tensor, "batch c_s h_s w_s"],
    teacher: Float[Tensor, "batch c_t h_t w_t"],
    power: Annotated[float, Range(least=1)] = 2.0,
) -> Float[Tensor, " batch"]:
    """Compute the mean squared difference of the attention maps of one stage."""
    s, t = to_smaller_size(student, teacher)
    return (attention(s, power) - attention(t, power)).square().mean(1)


@final
class AT(MapMethod):
    """Attention transfer: the student's stages are active where the teacher's are.

    Published weight: 1000, with weight 1 on the task loss.

    Args:
        student: Shapes of the student; needs maps.
        teacher: Shapes of the teacher; needs maps.
        stages: Maps to compare; default: all stages, matched from the deepest backwards. If the
            networks' names differ: 'stage2:stage3', the student's first.
        power: p, at least 1; a larger power emphasises the most active positions.
    """

    published_weight: ClassVar[float] = 1000.0

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        stages: tuple[str, ...] = (),
        power: Annotated[float, Range(least=1)] = 2.0,
    ) -> None:
        super().__init__(student, teacher)
        self.pairs, self.power = match_maps(student, teacher, stages), power

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        levels = [at(s, t, self.power) for s, t in self.paired_maps(student, teacher)]
        return batch_mean(torch.stack(levels).sum(0))
