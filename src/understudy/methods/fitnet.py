"""Romero et al.: "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv 1412.6550.

    L = 1/(B·D) Σᵢ ‖ r(sᵢ) − tᵢ ‖²

s, t are one feature of student and teacher (a map, tokens or a vector), r the regressor, D the
number of elements of tᵢ and B the batch size. As in the code base of CRD
(github.com/HobbitLong/RepDistiller), r is trained jointly with the student on the task, not in a
separate first stage, and ends in batch normalisation and ReLU on maps.
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
        feature: Name of the feature to compare.
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
        super().__init__()
        self.feature = feature
        # A map against tokens: both are compared as maps.
        self.as_maps = "map" in (student.kind(feature), teacher.kind(feature))
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
        """Teacher features the loss needs: the compared feature."""
        return (self.feature,)

    def projected(self, student: Features) -> Features:
        """Return the regressor's output."""
        s = student[self.feature]
        s = as_map(s) if self.as_maps else s
        return {} if isinstance(self.regressor, nn.Identity) else {self.feature: self.regressor(s)}

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        s, t = student[self.feature], teacher[self.feature]
        if self.as_maps:
            s, t = as_map(s), as_map(t)
        return batch_mean(fitnet(self.regressor(s), t))
