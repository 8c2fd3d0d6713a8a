"""Lee, Kim, Song: "Self-supervised Knowledge Distillation Using Singular Value Decomposition".

ECCV 2018, arXiv 1807.06819.

    L = 1/B Σᵢ Σₗ Σ_{a,b,k} ( r(vˢₗ[a,k], vˢₗ₋₁[b,k]) − r(vᵗₗ[a,k], vᵗₗ₋₁[b,k]) )²
    r(x, y) = exp( −(x − y)² / 8 )

The map of stage l of each image is read as a matrix F of C·H rows and W columns. vᵗₗ ∈ R^{W×k} are
the first k right singular vectors of the teacher's F, multiplied by its singular values scaled to
length 1; vˢₗ are those of the student's first k + 3 singular vectors that are closest to the
teacher's in angle, with the teacher's signs and factors. B is the batch size. The form is that of
github.com/megvii-research/mdistiller, which has k = 1.

Differences from that code: the larger map is average-pooled to the size of the smaller; a teacher's
vector has the sign that makes its sum positive, where the code keeps the arbitrary sign of the
decomposition; the vectors are eigenvectors of Fᵀ F, and their gradient leaves out pairs whose
squared singular values differ by less than 1e-4 of the largest, where the code's gradient is
infinite or NaN.
"""

from itertools import pairwise
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.batch import Batch
from understudy.config.limits import Count
from understudy.errors import ShapeError
from understudy.features import Features, Shapes
from understudy.functional import batch_mean, unit
from understudy.methods._maps import MapMethod, match_maps, to_smaller_size

Vectors = Float[Tensor, "batch width vectors"]

CLOSE = 1e-4
"""Relative gap of squared singular values below which two vectors count as degenerate."""


def kdsvd(
    stages: list[tuple[Float[Tensor, "batch c_s h w"], Float[Tensor, "batch c_t h w"]]],
    vectors: Count = 1,
) -> Float[Tensor, " batch"]:
    """Sum the squared differences of the relations of each stage to the one before."""
    # A map has as many vectors as columns, and stages are related vector by vector.
    count = min(vectors, *(x.shape[-1] for pair in stages for x in pair))
    aligned = [_aligned(s, t, count) for s, t in stages]
    rows = [
        (relation(s, s_before) - relation(t, t_before)).square().sum((1, 2, 3))
        for (s_before, t_before), (s, t) in pairwise(aligned)
    ]
    return torch.stack(rows).sum(0)


def relation(x: Vectors, before: Vectors) -> Float[Tensor, "batch width before vectors"]:
    """Compute exp(−(x[a] − before[b])² / 8) for all pairs of elements of vectors of one rank."""
    return (-(x.unsqueeze(2) - before.unsqueeze(1)).square() / 8).exp()


def singular(
    x: Float[Tensor, "batch channels height width"], count: int
) -> tuple[Float[Tensor, "batch vectors"], Vectors]:
    """Compute the first singular values and right singular vectors of each map, at most `count`."""
    rows = x.flatten(1, 2)
    gram = rows.mT @ rows
    with torch.no_grad():
        # eigh has a gradient of its own, which is infinite for equal eigenvalues.
        values, v = torch.linalg.eigh(gram)
        gap = values.unsqueeze(1) - values.unsqueeze(2)
        far = gap.abs() > CLOSE * values[:, -1, None, None].clamp_min(torch.finfo(x.dtype).tiny)
        inverse = torch.where(far, 1 / gap, 0)
    # Value 0, and the gradient of the eigenvectors: vₐ enters v_b by ⟨vₐ, dG v_b⟩ / (λ_b − λₐ).
    turn = (v.mT @ (gram - gram.detach()) @ v) * inverse
    # eigh sorts eigenvalues in ascending order.
    v = (v + v @ turn).flip(2)[:, :, :count]
    return values.flip(1)[:, :count].clamp_min(0).sqrt(), v


def _aligned(s: Tensor, t: Tensor, count: int) -> tuple[Vectors, Vectors]:
    """Compute vˢ and vᵗ of one stage."""
    singular_values, v_t = singular(t, count)
    v_t = v_t * torch.where(v_t.sum(1, keepdim=True) < 0, -1, 1)
    v_s = singular(s, count + 3)[1]
    cosine = v_s.detach().mT @ v_t
    closest = cosine.abs().argmax(1, keepdim=True)
    v_s = v_s.gather(2, closest.expand(-1, v_s.shape[1], -1)) * cosine.gather(1, closest).sign()
    factors = unit(singular_values).unsqueeze(1)
    return v_s * factors, v_t * factors


@final
class KDSVD(MapMethod):
    """Singular value decomposition: relations of singular vectors between consecutive stages.

    Published weight: 1, with weight 1 on the task loss.

    Args:
        student: Shapes of the student; needs maps.
        teacher: Shapes of the teacher; needs maps.
        stages: Maps to compare, at least two; default: all stages, matched from the deepest
            backwards. If the networks' names differ: 'stage2:stage3', the student's first.
        vectors: k, number of singular vectors of each stage; at most the columns of each map.
    """

    published_weight: ClassVar[float] = 1.0

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        stages: tuple[str, ...] = (),
        vectors: Count = 1,
    ) -> None:
        super().__init__(student, teacher)
        self.pairs, self.vectors = match_maps(student, teacher, stages), vectors
        if len(self.pairs) < 2:
            raise ShapeError(
                f"kdsvd relates each stage to the one before, but compares {len(self.pairs)} stage "
                f"of {student.owner} and {teacher.owner}; name two maps or more by `stages`."
            )

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        stages = [to_smaller_size(s, t) for s, t in self.paired_maps(student, teacher)]
        return batch_mean(kdsvd(stages, self.vectors))
