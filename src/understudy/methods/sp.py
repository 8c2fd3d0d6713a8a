"""Tung, Mori: "Similarity-Preserving Knowledge Distillation", ICCV 2019, arXiv 1907.09682.

    L = 1/B² ‖ G_s − G_t ‖²_F,     G = rows of F Fᵀ at length one

F ∈ R^{B×N} is one feature of student or teacher, flattened, B the batch, so that G ∈ R^{B×B} says
how alike the network finds any two images. The features need no equal shape. The form is that of
the code base of CRD (github.com/HobbitLong/RepDistiller).

On several processes each compares the images of its own share.
"""

from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor

from understudy.batch import Batch
from understudy.features import Features, Shapes
from understudy.functional import batch_mean, unit
from understudy.methods._method import Method
from understudy.methods._shapes import chosen


def sp(
    student: Float[Tensor, "batch ..."], teacher: Float[Tensor, "batch ..."]
) -> Float[Tensor, " batch"]:
    """Squared error of each row of G, divided by the batch."""
    gap = similarity(student) - similarity(teacher)
    return gap.square().sum(1) / max(len(gap), 1)


def similarity(x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch batch"]:
    """G: products of every two flattened features, rows at length one."""
    x = x.flatten(1)
    return unit(x @ x.T)


@final
class SP(Method):
    """Similarity-preserving: images alike for the teacher are alike for the student.

    Published weight: 3000.

    Args:
        student: Shapes of the student; needs `feature`.
        teacher: Shapes of the teacher; needs `feature`.
        feature: Which feature of both networks is compared, of any form; default each network's
            last stage.
    """

    published_weight: ClassVar[float] = 3000.0

    def __init__(self, student: Shapes, teacher: Shapes, *, feature: str | None = None) -> None:
        super().__init__()
        self.ours, self.theirs = chosen(student, feature), chosen(teacher, feature)

    @property
    def reads(self) -> tuple[str, ...]:
        """The compared feature alone."""
        return (self.theirs,)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The unweighted loss; labels are not used."""
        return batch_mean(sp(student[self.ours], teacher[self.theirs]))
