"""Park et al.: "Relational Knowledge Distillation", CVPR 2019, arXiv 1904.05068.

    L   = w_d L_d + w_a L_a
    L_d = 1/B² Σᵢⱼ h( ‖sⱼ − sᵢ‖ / μ_s,  ‖tⱼ − tᵢ‖ / μ_t )
    L_a = 1/B³ Σᵢⱼₖ h( ⟨eˢᵢⱼ, eˢᵢₖ⟩,  ⟨eᵗᵢⱼ, eᵗᵢₖ⟩ ),     eᵢⱼ = (xⱼ − xᵢ) / ‖xⱼ − xᵢ‖

s, t are the penultimate features of student and teacher, μ the mean distance of two different
images of the batch, h the Huber loss (quadratic below 1), B the batch size: distances of pairs and
angles of triples of images match the teacher's. The form is that of the code base of CRD
(github.com/HobbitLong/RepDistiller), where distances are clamped at 1e-6, here at 1e-12. With
several processes, each one compares only its own images.
"""

from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from understudy.batch import Batch
from understudy.config.limits import NonNegative
from understudy.features import Features, Shapes
from understudy.functional import batch_mean, norm, unit
from understudy.methods._method import Method

Differences = Float[Tensor, "batch batch dim"]
"""xⱼ − xᵢ at [i, j]."""


def rkd(
    student: Float[Tensor, "batch dim_s"],
    teacher: Float[Tensor, "batch dim_t"],
    distance: NonNegative = 25.0,
    angle: NonNegative = 50.0,
) -> Float[Tensor, " batch"]:
    """Compute w_d L_d + w_a L_a of each image i, averaged over j and k."""
    # xⱼ − xᵢ at [i, j]
    s, t = (x.unsqueeze(0) - x.unsqueeze(1) for x in (student, teacher))
    l_d = F.smooth_l1_loss(distances(s), distances(t), reduction="none").mean(1)
    l_a = F.smooth_l1_loss(angles(s), angles(t), reduction="none").mean((1, 2))
    return distance * l_d + angle * l_a


def distances(differences: Differences) -> Float[Tensor, "batch batch"]:
    """Divide the distance of each pair of images by the mean distance of two different images."""
    length, images = norm(differences), len(differences)
    return length / (length.sum() / max(images * (images - 1), 1))


def angles(differences: Differences) -> Float[Tensor, "batch batch batch"]:
    """Compute the cosine of the angle at image i between images j and k."""
    direction = unit(differences)
    return direction @ direction.mT


@final
class RKD(Method):
    """Relations between images: distances of pairs and angles of triples match the teacher's.

    Published weight: 1, with w_d = 25 and w_a = 50.

    Args:
        student: Shapes of the student; needs the vector `penultimate`.
        teacher: Shapes of the teacher; needs the vector `penultimate`.
        distance: w_d, weight of the distances.
        angle: w_a, weight of the angles.
    """

    published_weight: ClassVar[float] = 1.0

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        distance: NonNegative = 25.0,
        angle: NonNegative = 50.0,
    ) -> None:
        super().__init__()
        # Raises if either is not a vector.
        student.vector("penultimate"), teacher.vector("penultimate")
        self.distance, self.angle = distance, angle

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the penultimate feature."""
        return ("penultimate",)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        s, t = student["penultimate"], teacher["penultimate"]
        return batch_mean(rkd(s, t, self.distance, self.angle))
