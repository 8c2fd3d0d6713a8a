"""Lee, Kim, Song: "Self-supervised Knowledge Distillation Using Singular Value Decomposition".

ECCV 2018, arXiv 1807.06819.

    L = 1/B Σᵢ Σₗ Σ_{a,b,k} ( r(vˢₗ[a,k], vˢₗ₋₁[b,k]) − r(vᵗₗ[a,k], vᵗₗ₋₁[b,k]) )²
    r(x, y) = exp( −(x − y)² / 8 )

The map of stage l of each image is taken as a matrix of C·H rows and W columns. vᵗₗ ∈ R^{W×k} are
its first k right singular vectors in the teacher, times its singular values at length one; vˢₗ are
those among the student's first k + 3 that are nearest to the teacher's in angle, with the same sign
and the same factors. B is the batch. The form is that of github.com/megvii-research/mdistiller,
which has k = 1.

Where this departs from that code: the larger map is averaged down to the smaller; a teacher's
vector has the sign that makes its sum positive, where the code keeps whatever sign the
decomposition returns; the vectors are those of the product Fᵀ F, and their gradient leaves out
pairs whose squared singular values differ by less than 1e-4 of the largest, where the code's is
infinite or NaN.
"""

from itertools import pairwise
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.batch import Batch
from understudy.errors import RecipeError, ShapeError
from understudy.features import Features, Shapes
from understudy.functional import batch_mean, unit
from understudy.methods._maps import OnMaps, maps, meet, pairs

Vectors = Float[Tensor, "batch width vectors"]

CLOSE = 1e-4
"""Gap between squared singular values, over the largest, below which vectors are not told apart."""


def kdsvd(
    stages: list[tuple[Float[Tensor, "batch c_s h w"], Float[Tensor, "batch c_t h w"]]],
    vectors: int = 1,
) -> Float[Tensor, " batch"]:
    """Squared difference of the relations of each stage with the one before, summed."""
    aligned = [_aligned(s, t, vectors) for s, t in stages]
    rows = [
        (relation(s, s_before) - relation(t, t_before)).square().sum((1, 2, 3))
        for (s_before, t_before), (s, t) in pairwise(aligned)
    ]
    return torch.stack(rows).sum(0)


def relation(x: Vectors, before: Vectors) -> Float[Tensor, "batch width before vectors"]:
    """exp(−(x[a] − before[b])² / 8) of every two elements of vectors of the same rank."""
    return (-(x.unsqueeze(2) - before.unsqueeze(1)).square() / 8).exp()


def singular(
    x: Float[Tensor, "batch channels height width"], count: int
) -> tuple[Float[Tensor, "batch vectors"], Vectors]:
    """The first singular values and right singular vectors of each map, as far as there are."""
    rows = x.flatten(1, 2)
    product = rows.mT @ rows
    with torch.no_grad():
        values, v = torch.linalg.eigh(product)
        gap = values.unsqueeze(1) - values.unsqueeze(2)
        far = gap.abs() > CLOSE * values[:, -1, None, None].clamp_min(torch.finfo(x.dtype).tiny)
        inverse = torch.where(far, 1 / gap, 0)
    # Adds nothing but the gradient: eigenvectors turn by ⟨vₐ, dG v_b⟩ / (λ_b − λₐ).
    turn = (v.mT @ (product - product.detach()) @ v) * inverse
    v = (v + v @ turn).flip(2)[:, :, :count]
    return values.flip(1)[:, :count].clamp_min(0).sqrt(), v


def _aligned(s: Tensor, t: Tensor, count: int) -> tuple[Vectors, Vectors]:
    strength, theirs = singular(t, count)
    theirs = theirs * torch.where(theirs.sum(1, keepdim=True) < 0, -1, 1)
    ours = singular(s, count + 3)[1]
    cosine = ours.detach().mT @ theirs
    best = cosine.abs().argmax(1, keepdim=True)
    ours = ours.gather(2, best.expand(-1, ours.shape[1], -1)) * cosine.gather(1, best).sign()
    strength = unit(strength).unsqueeze(1)
    return ours * strength, theirs * strength


@final
class KDSVD(OnMaps):
    """Singular vectors of the maps, and how they relate from stage to stage.

    Published weight: 1, beside 1 on the labels.

    Args:
        student: Shapes of the student; needs maps.
        teacher: Shapes of the teacher; needs maps.
        stages: Maps to compare, at least two; default all stages, matched from the deepest
            backwards. Where the networks' names differ: 'stage2:stage3', the student's first.
        vectors: k.
    """

    published_weight: ClassVar[float] = 1.0

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        stages: tuple[str, ...] = (),
        vectors: int = 1,
    ) -> None:
        super().__init__()
        if vectors < 1:
            raise RecipeError(f"'vectors' of kdsvd is {vectors}; it must be at least 1.")
        self.pairs, self.vectors = pairs(student, teacher, stages), vectors
        if len(self.pairs) < 2:
            raise ShapeError(
                f"kdsvd relates each stage to the one before, but {student.owner} and "
                f"{teacher.owner} share {len(self.pairs)}; name two maps or more by `stages`."
            )

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The unweighted loss; labels are not used."""
        stages = [meet(s, t) for s, t in maps(student, teacher, self.pairs)]
        return batch_mean(kdsvd(stages, self.vectors))
