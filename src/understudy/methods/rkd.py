"""Park et al.: "Relational Knowledge Distillation", CVPR 2019, arXiv 1904.05068.

    L   = w_d L_d + w_a L_a
    L_d = 1/B² Σᵢⱼ h( ‖sⱼ − sᵢ‖ / μ_s,  ‖tⱼ − tᵢ‖ / μ_t )
    L_a = 1/B³ Σᵢⱼₖ h( ⟨eˢᵢⱼ, eˢᵢₖ⟩,  ⟨eᵗᵢⱼ, eᵗᵢₖ⟩ ),     eᵢⱼ = (xⱼ − xᵢ) / ‖xⱼ − xᵢ‖

s, t are the penultimate features of student and teacher, μ the mean distance of two different
images of the batch, h the Huber loss (quadratic below 1), B the batch: distances between images and
angles between triples agree. The form is that of the code base of CRD
(github.com/HobbitLong/RepDistiller); its lower clamp of distances is 1e-6, here 1e-12. On several
processes each compares the images of its own share.
"""

from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from understudy.batch import Batch
from understudy.features import Features, Shapes
from understudy.functional import batch_mean, norm, unit
from understudy.methods._method import Method

Steps = Float[Tensor, "batch batch dim"]
"""xⱼ − xᵢ at [i, j]."""


def rkd(
    student: Float[Tensor, "batch dim_s"],
    teacher: Float[Tensor, "batch dim_t"],
    distance: float = 25.0,
    angle: float = 50.0,
) -> Float[Tensor, " batch"]:
    """Both losses of each image i, averaged over j and k."""
    s, t = (x.unsqueeze(0) - x.unsqueeze(1) for x in (student, teacher))
    far = F.smooth_l1_loss(distances(s), distances(t), reduction="none").mean(1)
    turned = F.smooth_l1_loss(angles(s), angles(t), reduction="none").mean((1, 2))
    return distance * far + angle * turned


def distances(steps: Steps) -> Float[Tensor, "batch batch"]:
    """Distance of every two images over the mean distance of two different ones."""
    length, images = norm(steps), len(steps)
    return length / (length.sum() / max(images * (images - 1), 1))


def angles(steps: Steps) -> Float[Tensor, "batch batch batch"]:
    """Cosine of the angle at image i between images j and k."""
    direction = unit(steps)
    return direction @ direction.mT


@final
class RKD(Method):
    """Relations between images: their distances and their angles.

    Published weight: 1, with 25 and 50 inside.

    Args:
        student: Shapes of the student; needs the vector `penultimate`.
        teacher: Shapes of the teacher; needs the vector `penultimate`.
        distance: w_d.
        angle: w_a.
    """

    published_weight: ClassVar[float] = 1.0

    def __init__(
        self, student: Shapes, teacher: Shapes, *, distance: float = 25.0, angle: float = 50.0
    ) -> None:
        super().__init__()
        student.vector("penultimate"), teacher.vector("penultimate")
        self.distance, self.angle = distance, angle

    @property
    def reads(self) -> tuple[str, ...]:
        """The penultimate feature."""
        return ("penultimate",)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The unweighted loss; labels are not used."""
        s, t = student["penultimate"], teacher["penultimate"]
        return batch_mean(rkd(s, t, self.distance, self.angle))
