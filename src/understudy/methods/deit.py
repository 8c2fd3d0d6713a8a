"""Touvron et al.: "Training Data-Efficient Image Transformers & Distillation through Attention".

ICML 2021, arXiv 2012.12877.

    L = 1/B Σᵢ CE( dᵢ, argmaxₖ tᵢₖ )

d ∈ R^{B×K} are the logits of the student's distillation head, which reads its distillation token,
t ∈ R^{B×K} the teacher's logits, B the batch size: hard distillation, without a temperature. The
student's class head, which reads its class token, is trained only on the labels; in evaluation the
logits are the mean of both heads. Such students are timm's `deit_*_distilled_*` and
`pit_*_distilled_*`.

DeiT++ of "Improving Knowledge Distillation via Regularizing Feature Direction and Norm" (arXiv
2305.17007) is this method with `nd`, for which the penultimate feature is the mean of both tokens.
"""

from typing import Any, ClassVar, final

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from understudy.batch import Batch
from understudy.errors import ShapeError
from understudy.features import Extendable, Features, Shapes
from understudy.functional import batch_mean
from understudy.methods._method import Method
from understudy.methods._shapes import same_classes


def deit(
    student: Float[Tensor, "batch classes"], teacher: Float[Tensor, "batch classes"]
) -> Float[Tensor, " batch"]:
    """Compute the cross-entropy of each row with the teacher's predicted class."""
    return F.cross_entropy(student, teacher.argmax(1), reduction="none")


@final
class DeiT(Method):
    """Distillation token: a second head of the student learns the teacher's predicted class.

    Published weight: 0.5, with weight 0.5 on the task loss; with weight 1 in DeiT++.

    Args:
        student: Shapes of the student; needs `dist_logits`, the logits of its distillation head.
        teacher: Shapes of the teacher; needs `logits` of the same classes.
    """

    published_weight: ClassVar[float] = 0.5
    trains_classifier: ClassVar[bool] = True
    requires_softmax: ClassVar[bool] = True

    @classmethod
    def extend(cls, student: Extendable, teacher: Shapes, **hyper_parameters: Any) -> None:
        """Make the student return both heads separately in training, and not only their mean."""
        for module in student.module.modules():
            # timm's switch for students with a distillation token
            set_distilled_training = getattr(module, "set_distilled_training", None)
            if set_distilled_training is not None:
                set_distilled_training(True)

    def __init__(self, student: Shapes, teacher: Shapes) -> None:
        super().__init__()
        classes = same_classes("deit", student, teacher)
        if "dist_logits" not in student or student.vector("dist_logits") != classes:
            raise ShapeError(
                f"deit trains the head of a distillation token, `dist_logits` of {classes} "
                f"classes, which {student.owner} does not have; use such a student, for example "
                "timm:deit_tiny_distilled_patch16_224, or another method."
            )

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the logits."""
        return ("logits",)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        return batch_mean(deit(student["dist_logits"], teacher["logits"]))
