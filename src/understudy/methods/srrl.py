"""Yang et al.: "Knowledge Distillation via Softmax Regression Representation Learning", ICLR 2021.

openreview.net/forum?id=ZzwDy_wiWv, not on arXiv.

    L = 1/(B·D) Σᵢ ‖ hᵢ − tᵢ ‖² + 1/(B·K) Σᵢ ‖ (C hᵢ + c) − (C tᵢ + c) ‖²,     h = ReLU(BN(W s))

s ∈ R^{B×d}, t ∈ R^{B×D} are the penultimate features of student and teacher, W and BN trained, C
and c the weight and bias of the teacher's classifier for K classes, frozen, B the batch: to the
teacher's classifier the student's feature means what the teacher's does. The form is that of the
code base of SimKD (github.com/DefangChen/SimKD); C tᵢ + c are the logits as the teacher gives them.
"""

from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.features import Features, Shapes, TeacherOutputs
from understudy.functional import batch_mean
from understudy.methods._classifier import Classifier
from understudy.methods._method import Method
from understudy.methods._projectors import BatchNorm


def srrl(
    projected: Float[Tensor, "batch dim"],
    teacher: Float[Tensor, "batch dim"],
    logits: Float[Tensor, "batch classes"],
    teacher_logits: Float[Tensor, "batch classes"],
) -> Float[Tensor, " batch"]:
    """Squared error of the feature and of what the classifier makes of it, of each row."""
    feature = (projected - teacher).square().mean(1)
    return feature + (logits - teacher_logits).square().mean(1)


@final
class SRRL(Method):
    """Softmax regression: the student's feature, read by the teacher's classifier.

    Published weight: 1, beside 1 on the labels and `kd` of weight 1.

    Args:
        student: Shapes of the student; needs the vector `penultimate`.
        teacher: Shapes of the teacher; needs the vector `penultimate`, and `logits`.
    """

    published_weight: ClassVar[float] = 1.0

    def __init__(self, student: Shapes, teacher: Shapes) -> None:
        super().__init__()
        self.classifier = Classifier("srrl", teacher)
        ours, theirs = student.vector("penultimate"), teacher.vector("penultimate")
        linear = nn.Linear(ours, theirs, bias=False)
        self.projector = nn.Sequential(linear, BatchNorm(theirs), nn.ReLU())
        self.prepared = False

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Copy the teacher's classifier.

        Raises:
            ShapeError: It is not a linear layer on the penultimate feature.
        """
        self.classifier.copy(teacher)
        self.prepared = True

    def projected(self, student: Features) -> Features:
        """The feature as the teacher's classifier reads it."""
        return {"penultimate": self.projector(student["penultimate"])}

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The unweighted loss; labels are not used."""
        h = self.projected(student)["penultimate"]
        return batch_mean(srrl(h, teacher["penultimate"], self.classifier(h), teacher["logits"]))
