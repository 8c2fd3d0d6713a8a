"""Romero et al.: "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv 1412.6550.

    L = 1/(B·D) Σᵢ ‖ r(sᵢ) − tᵢ ‖²

s, t are one feature of student and teacher (a map, tokens or a vector), r the regressor, D the
number of elements of tᵢ and B the batch size. As in the code base of CRD
(github.com/HobbitLong/RepDistiller), r is trained jointly with the student on the task, not in a
separate first stage, and ends in batch normalisation and ReLU on maps. Tokens are compared as
maps, without those before the patches, if the other network has a map or another number of them.
Maps whose sizes that code does not know meet by resizing the student's bilinearly to the
teacher's, before a 1×1 convolution: a smaller one that is not half as large, and any but a half or
a double one where tokens take part.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, final

from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.errors import ShapeError
from understudy.features import Features, Shapes
from understudy.functional import batch_mean
from understudy.methods._method import Method
from understudy.methods._projectors import compared_as_maps, regressor
from understudy.methods._tokens import pair_of


def fitnet(
    student: Float[Tensor, "batch dim ..."], teacher: Float[Tensor, "batch dim ..."]
) -> Float[Tensor, " batch"]:
    """Compute the squared error of each row, averaged over its elements."""
    return (student - teacher).square().flatten(1).mean(1)


@final
class FitNet(Method):
    """Hints: the student's feature, passed through a regressor, matches the teacher's.

    Published weight: 100, with `stage2`. For detection, where a place has no stages, the default is
    the penultimate feature with the weight of lshfm's L2 term.

    Args:
        student: Shapes of the student; needs `feature`.
        teacher: Shapes of the teacher; needs `feature`.
        feature: Name of the feature to compare; 'stage2:stage3', the student's first, if the names
            differ.
        projector: `none` compares the features directly; their shapes must then be equal.
    """

    published_weight: ClassVar[float] = 100.0
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "multilabel": {"weight": 8.0},
        "detection": {"weight": 7.0, "feature": "penultimate"},
    }

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        feature: str = "stage2",
        projector: Literal["regressor", "none"] = "regressor",
    ) -> None:
        super().__init__(student, teacher)
        self.features = pair_of(feature)
        s, t = self.features
        self.as_maps = compared_as_maps(student, teacher, self.features)
        if projector == "none" and student[s] != teacher[t]:
            raise ShapeError(
                f"{s!r} is {student[s]} in {student.owner} and {t!r} is {teacher[t]} in "
                f"{teacher.owner}; fitnet without its regressor needs equal shapes."
            )
        self.regressor = (
            nn.Identity() if projector == "none" else regressor(student, teacher, self.features)
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the compared feature."""
        return (self.features[1],)

    def projected(self, student: Features) -> Features:
        """Return the regressor's output."""
        if isinstance(self.regressor, nn.Identity):
            return {}
        s, t = self.features
        return {t: self.regressor(self.student_as_map(student, s) if self.as_maps else student[s])}

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        s_name, t_name = self.features
        if self.as_maps:
            s, t = self.student_as_map(student, s_name), self.teacher_as_map(teacher, t_name)
        else:
            s, t = student[s_name], teacher[t_name]
        return batch_mean(fitnet(self.regressor(s), t))
