"""Yang et al.: "Knowledge Distillation via Softmax Regression Representation Learning", ICLR 2021.

openreview.net/forum?id=ZzwDy_wiWv, not on arXiv.

    L = 1/(B·D) Σᵢ ‖ hᵢ − tᵢ ‖² + 1/(B·K) Σᵢ ‖ (C hᵢ + c) − (C tᵢ + c) ‖²,     h = ReLU(BN(W s))

s ∈ R^{B×d}, t ∈ R^{B×D} are the penultimate features of student and teacher, W and BN a trained
projector, C and c the frozen weight and bias of the teacher's classifier for K classes, B the batch
size: the teacher's classifier gives the same logits for the student's feature as for the teacher's.
The form is that of the code base of SimKD (github.com/DefangChen/SimKD); C tᵢ + c are the teacher's
own logits.
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
    """Compute the squared errors of the feature and of its logits, of each row."""
    feature = (projected - teacher).square().mean(1)
    return feature + (logits - teacher_logits).square().mean(1)


@final
class SRRL(Method):
    """Softmax regression: the student's feature gives the teacher's logits in its classifier.

    Published weight: 1, with weight 1 on the task loss and `kd` of weight 1.

    Args:
        student: Shapes of the student; needs the vector `penultimate`.
        teacher: Shapes of the teacher; needs the vector `penultimate`, and `logits`.
    """

    published_weight: ClassVar[float] = 1.0

    def __init__(self, student: Shapes, teacher: Shapes) -> None:
        super().__init__()
        self.classifier = Classifier("srrl", teacher)
        dim_s, dim_t = student.vector("penultimate"), teacher.vector("penultimate")
        linear = nn.Linear(dim_s, dim_t, bias=False)
        self.projector = nn.Sequential(linear, BatchNorm(dim_t), nn.ReLU())
        self.prepared = False

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Copy the teacher's classifier.

        Raises:
            ShapeError: The classifier is not a linear layer on the penultimate feature.
        """
        self.classifier.copy(teacher)
        self.prepared = True

    def projected(self, student: Features) -> Features:
        """Return h, the student's feature after the projector."""
        return {"penultimate": self.projector(student["penultimate"])}

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        # The teacher's logits are C t + c already: only h passes the copied classifier.
        h = self.projected(student)["penultimate"]
        return batch_mean(srrl(h, teacher["penultimate"], self.classifier(h), teacher["logits"]))
