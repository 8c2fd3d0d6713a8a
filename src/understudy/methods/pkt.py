"""Passalis, Tefas: "Learning Deep Representations with Probabilistic Knowledge Transfer".

ECCV 2018, arXiv 1803.10837.

    L = 1/B² Σᵢⱼ Pᵢⱼ log( (Pᵢⱼ + ε) / (Qᵢⱼ + ε) )
    Pᵢⱼ = Kᵢⱼ / Σₖ Kᵢₖ,     Kᵢⱼ = ( cos(tᵢ, tⱼ) + 1 ) / 2

P, the conditional probability that two images are neighbours, is computed from the teacher's
penultimate features t ∈ R^{B×d_t}, and Q likewise from the student's, s ∈ R^{B×d_s}; B is the batch
size. The form is that of the code base of CRD (github.com/HobbitLong/RepDistiller): a mean over all
pairs, where the paper sums, which explains the large weight; the cosine divides by ‖x‖ + ε.

Difference from that code: a zero row has gradient zero, where the code has NaN. With several
processes, each one compares only its own images.
"""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.batch import Batch
from understudy.config.limits import Positive
from understudy.features import Features, Shapes
from understudy.functional import EPS, batch_mean, norm
from understudy.methods._method import Method


def pkt(
    student: Float[Tensor, "batch dim_s"],
    teacher: Float[Tensor, "batch dim_t"],
    eps: Positive = 1e-7,
) -> Float[Tensor, " batch"]:
    """Compute P log((P + ε) / (Q + ε)) of each image i, averaged over j."""
    q, p = neighbours(student, eps), neighbours(teacher, eps)
    return (p * ((p + eps) / (q + eps)).log()).mean(1)


def neighbours(x: Float[Tensor, "batch dim"], eps: float) -> Float[Tensor, "batch batch"]:
    """Compute the neighbour probabilities: K with rows scaled to sum 1."""
    length = norm(x).unsqueeze(1)
    x = torch.where(length > EPS, x, 0) / (length + eps)
    kernel = (x @ x.T + 1) / 2
    return kernel / kernel.sum(1, keepdim=True)


@final
class PKT(Method):
    """Probabilistic knowledge transfer: neighbour probabilities of images match the teacher's.

    Published weight: 30000.

    Args:
        student: Shapes of the student; needs the vector `penultimate`.
        teacher: Shapes of the teacher; needs the vector `penultimate`.
        eps: ε, keeps quotients and logarithms finite.
    """

    published_weight: ClassVar[float] = 30000.0

    def __init__(self, student: Shapes, teacher: Shapes, *, eps: Positive = 1e-7) -> None:
        super().__init__()
        # Raises if either is not a vector.
        student.vector("penultimate"), teacher.vector("penultimate")
        self.eps = eps

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the penultimate feature."""
        return ("penultimate",)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        return batch_mean(pkt(student["penultimate"], teacher["penultimate"], self.eps))
