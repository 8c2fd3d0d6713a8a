"""Romero et al.: "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv 1412.6550.

    L = 1/(B·D) Σᵢ ‖ r(sᵢ) − tᵢ ‖²

s, t are one feature of student and teacher (a map, tokens or a vector), r the regressor, D the
number of elements of tᵢ and B the batch. As in the code base of CRD
(github.com/HobbitLong/RepDistiller), r is trained jointly with the student on the task, not in a
first stage of its own, and ends in batch normalisation and ReLU on maps.
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
from understudy.methods._projectors import as_map, regressor


def fitnet(
    student: Float[Tensor, "batch dim ..."], teacher: Float[Tensor, "batch dim ..."]
) -> Float[Tensor, " batch"]:
    """Squared error of each row, averaged over its elements."""
    return (student - teacher).square().flatten(1).mean(1)


@final
class FitNet(Method):
    """Hints: the student's feature, passed through a regressor, equals the teacher's.

    Published weight: 100, with `stage2`. For detection, whose places have no stages, it is the
    penultimate feature with the weight of lshfm's L2.

    Args:
        student: Shapes of the student; needs `feature`.
        teacher: Shapes of the teacher; needs `feature`.
        feature: Which feature of both networks is compared.
        projector: `none` compares the features as they are, which must then have equal shapes.
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
        super().__init__()
        self.feature = feature
        self.grid = "map" in (student.kind(feature), teacher.kind(feature))
        if projector == "none" and student[feature] != teacher[feature]:
            raise ShapeError(
                f"{feature!r} is {student[feature]} in {student.owner} and {teacher[feature]} in "
                f"{teacher.owner}; fitnet without its regressor needs equal shapes."
            )
        self.regressor = (
            nn.Identity() if projector == "none" else regressor(student, teacher, feature)
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """The compared feature alone."""
        return (self.feature,)

    def projected(self, student: Features) -> Features:
        """What the regressor makes of the feature."""
        s = student[self.feature]
        s = as_map(s) if self.grid else s
        return {} if isinstance(self.regressor, nn.Identity) else {self.feature: self.regressor(s)}

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The unweighted loss; labels are not used."""
        s, t = student[self.feature], teacher[self.feature]
        if self.grid:
            s, t = as_map(s), as_map(t)
        return batch_mean(fitnet(self.regressor(s), t))
