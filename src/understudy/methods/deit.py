"""Touvron et al.: "Training Data-Efficient Image Transformers & Distillation through Attention".

ICML 2021, arXiv 2012.12877.

    L = 1/B Σᵢ CE( dᵢ, argmaxₖ tᵢₖ )

d ∈ R^{B×K} are the logits that the student reads from its distillation token, t ∈ R^{B×K} the
teacher's logits, B the batch: hard distillation, without a temperature. The student's other head,
which reads its class token, learns from the labels alone; when it is tested, the logits are the
mean of both heads. Such students are timm's `deit_*_distilled_*` and `pit_*_distilled_*`.

DeiT++ of "Improving Knowledge Distillation via Regularizing Feature Direction and Norm" (arXiv
2305.17007) is this and `nd`, whose penultimate feature is the mean of both tokens.
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
    """Cross-entropy of each row with the class that the teacher sees."""
    return F.cross_entropy(student, teacher.argmax(1), reduction="none")


@final
class DeiT(Method):
    """Distillation token: a second head of the student learns the class that the teacher sees.

    Published weight: 0.5, beside 0.5 on the labels; beside 1 in DeiT++.

    Args:
        student: Shapes of the student; needs `dist_logits`, those of its distillation token.
        teacher: Shapes of the teacher; needs `logits` of the same classes.
    """

    published_weight: ClassVar[float] = 0.5
    requires_softmax: ClassVar[bool] = True

    @classmethod
    def extend(cls, student: Extendable, teacher: Shapes, **hyper_parameters: Any) -> None:
        """Let each head learn by itself, where a network averages them in training as well."""
        for module in student.module.modules():
            separate = getattr(module, "set_distilled_training", None)
            if separate is not None:
                separate(True)

    def __init__(self, student: Shapes, teacher: Shapes) -> None:
        super().__init__()
        classes = same_classes("deit", student, teacher)
        if "dist_logits" not in student or student.vector("dist_logits") != classes:
            raise ShapeError(
                f"deit trains the head of a distillation token, `dist_logits` of {classes} "
                f"classes, which {student.owner} has not; use such a student, for example "
                "timm:deit_tiny_distilled_patch16_224, or another method."
            )

    @property
    def reads(self) -> tuple[str, ...]:
        """The logits."""
        return ("logits",)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The unweighted loss; labels are not used."""
        return batch_mean(deit(student["dist_logits"], teacher["logits"]))
