"""Huang, Wang: "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer", 2017.

arXiv 1707.01219.

    L = Σₗ 1/B Σᵢ mean_{c,c'} [ k(s_c, s_c') − 2 k(s_c, t_c') + k(t_c, t_c') ],   k(a, b) = ⟨a, b⟩²

k compares two channels; the mean is over all pairs of channels. s_c, t_c ∈ R^N are the channels of
stage l of student and teacher over N = H·W positions, each scaled to length 1 (the larger map is
average-pooled to the size of the smaller), B the batch size. This is the squared maximum mean
discrepancy of two sets of channels. The last term is constant, and is part of the value as in the
code base of CRD (github.com/HobbitLong/RepDistiller).

The value is the squared distance of two N×N matrices over pairs of positions,
‖ SᵀS/C_s − TᵀT/C_t ‖², or a sum of three Gram matrices over pairs of channels; the cheaper one is
computed. That code stores the terms of all products ⟨a, b⟩ before it sums them, B·C_s·C_t·N
numbers: 0.5 GiB for two maps of 256×8×8 and B = 32.

Difference from that code: a channel that is zero everywhere has gradient zero.
"""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.batch import Batch
from understudy.features import Features, Shapes
from understudy.functional import batch_mean, unit
from understudy.methods._maps import MapMethod, match_maps, to_smaller_size


def nst(
    student: Float[Tensor, "batch c_s h_s w_s"], teacher: Float[Tensor, "batch c_t h_t w_t"]
) -> Float[Tensor, " batch"]:
    """Compute the squared maximum mean discrepancy of the channels of the maps of one stage."""
    s, t = (unit(x.flatten(2)) for x in to_smaller_size(student, teacher))
    positions = s.shape[2]
    # Both forms are equal; the matrices over pairs of positions are the smaller ones here.
    if positions**2 <= s.shape[1] * t.shape[1]:
        difference = s.mT @ s / s.shape[1] - t.mT @ t / t.shape[1]
        return difference.square().sum((1, 2))
    return _kernel(s, s) - 2 * _kernel(s, t) + _kernel(t, t)


def _kernel(a: Tensor, b: Tensor) -> Float[Tensor, " batch"]:
    """Average ⟨a_c, b_c'⟩² over all pairs of channels."""
    return (a @ b.mT).square().mean((1, 2))


@final
class NST(MapMethod):
    """Neuron selectivity transfer: the student's channels are distributed like the teacher's.

    Published weight: 50, with weight 1 on the task loss.

    Args:
        student: Shapes of the student; needs maps.
        teacher: Shapes of the teacher; needs maps.
        stages: Maps to compare; default: all stages, matched from the deepest backwards. If the
            networks' names differ: 'stage2:stage3', the student's first.
    """

    published_weight: ClassVar[float] = 50.0

    def __init__(self, student: Shapes, teacher: Shapes, *, stages: tuple[str, ...] = ()) -> None:
        super().__init__(student, teacher)
        self.pairs = match_maps(student, teacher, stages)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        levels = [nst(s, t) for s, t in self.paired_maps(student, teacher)]
        return batch_mean(torch.stack(levels).sum(0))
