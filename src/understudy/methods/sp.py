"""Tung, Mori: "Similarity-Preserving Knowledge Distillation", ICCV 2019, arXiv 1907.09682.

    L = 1/B² ‖ G_s − G_t ‖²_F,     G = rows of F Fᵀ at length one

F ∈ R^{B×N} is one feature of student or teacher, flattened, B the batch size, so that G ∈ R^{B×B}
holds the similarities of all pairs of images. The features may differ in shape. The form is that of
the code base of CRD (github.com/HobbitLong/RepDistiller).

With several processes, each one compares only its own images.
"""

from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor

from understudy.batch import Batch
from understudy.features import Features, Shapes
from understudy.functional import batch_mean, unit
from understudy.methods._method import Method
from understudy.methods._shapes import feature_or_last_stage


def sp(
    student: Float[Tensor, "batch ..."], teacher: Float[Tensor, "batch ..."]
) -> Float[Tensor, " batch"]:
    """Compute the squared error of each row of G, divided by the batch size."""
    difference = similarity(student) - similarity(teacher)
    return difference.square().sum(1) / max(len(difference), 1)


def similarity(x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch batch"]:
    """Compute G: inner products of all pairs of flattened features, rows scaled to length 1."""
    x = x.flatten(1)
    return unit(x @ x.T)


@final
class SP(Method):
    """Similarity-preserving: similarities between the images of a batch match the teacher's.

    Published weight: 3000.

    Args:
        student: Shapes of the student; needs `feature`.
        teacher: Shapes of the teacher; needs `feature`.
        feature: Name of the feature to compare, of any kind; default: each network's last stage.
    """

    published_weight: ClassVar[float] = 3000.0

    def __init__(self, student: Shapes, teacher: Shapes, *, feature: str | None = None) -> None:
        super().__init__()
        self.student_feature = feature_or_last_stage(student, feature)
        self.teacher_feature = feature_or_last_stage(teacher, feature)

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the compared feature."""
        return (self.teacher_feature,)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        return batch_mean(sp(student[self.student_feature], teacher[self.teacher_feature]))
