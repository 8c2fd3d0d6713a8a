"""Zhao et al.: "Decoupled Knowledge Distillation", CVPR 2022, arXiv 2203.08679.

    L = T²/B Σᵢ [ α KL( bᵗ ‖ bˢ ) + β KL( qᵗ ‖ qˢ ) ]

b = (p_y, 1 − p_y) is the probability of the target class y against all others, q the softmax over
the K − 1 other classes, both of logits ∈ R^{B×K} divided by the temperature T; B is the batch size.
Code of the authors: github.com/megvii-research/mdistiller. The paper's warm-up of the weight over
20 epochs is `{value: 1, warmup_epochs: 20, warmup_counts_from: 1}` in a recipe.

Differences from the released code: probabilities are kept as logarithms, log p_y = z_y −
logsumexp z and log(1 − p_y) = logsumexp over the other classes − logsumexp z. The code sums
probabilities, which gives infinity for a very confident student, and masks the target class by
subtracting 1000, which fails for logits above 1000 T. An image without label takes the teacher's
predicted class.
"""

from typing import ClassVar, final

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from understudy.batch import Batch
from understudy.config.limits import NonNegative, Positive
from understudy.errors import ShapeError
from understudy.features import Features, Shapes
from understudy.functional import batch_mean
from understudy.methods._logits import labels_or_predictions, standardised
from understudy.methods._method import Method
from understudy.methods._shapes import same_classes


def dkd(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"],
    alpha: NonNegative = 1.0,
    beta: NonNegative = 8.0,
    temperature: Positive = 4.0,
) -> Float[Tensor, " batch"]:
    """Compute T² (α KL(b) + β KL(q)) of each row."""
    own = F.one_hot(labels, student.shape[1]).bool()
    (own_s, other_s, q_s), (own_t, other_t, q_t) = (
        _decoupled(z / temperature, own) for z in (student, teacher)
    )
    # KL of two-class distributions, target class against the rest.
    target = own_t.exp() * (own_t - own_s) + other_t.exp() * (other_t - other_s)
    # q is −∞ at the target class in both networks; 0 · (−∞ + ∞) would be NaN.
    others = (q_t.exp() * (q_t - q_s).masked_fill(own, 0)).sum(1)
    return temperature**2 * (alpha * target + beta * others)


def _decoupled(
    z: Float[Tensor, "batch classes"], own: Tensor
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"], Float[Tensor, "batch classes"]]:
    """Compute log p_y, log(1 − p_y) and log q, which is −∞ at y."""
    rest = z.masked_fill(own, -float("inf"))
    total, others = z.logsumexp(1), rest.logsumexp(1)
    return z.where(own, 0).sum(1) - total, others - total, rest - others.unsqueeze(1)


@final
class DKD(Method):
    """Decoupled knowledge distillation: target class and other classes, each with its own weight.

    Published weight: 1, with α = 1, T = 4 and β from 2 to 8 by pair of networks (CIFAR-100), or
    T = 1 and β from 0.5 to 2 (ImageNet).

    Args:
        student: Shapes of the student; needs `logits`.
        teacher: Shapes of the teacher; needs `logits` of the same classes.
        alpha: α, weight of the target class against the others (TCKD).
        beta: β, weight of the distribution over the other classes (NCKD).
        temperature: T, softens all distributions.
        standardise: Scale the logits of each row to mean 0 and deviation 1 first.
    """

    published_weight: ClassVar[float] = 1.0
    trains_classifier: ClassVar[bool] = True
    requires_softmax: ClassVar[bool] = True
    requires_hard_labels: ClassVar[bool] = True

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        alpha: NonNegative = 1.0,
        beta: NonNegative = 8.0,
        temperature: Positive = 4.0,
        standardise: bool = False,
    ) -> None:
        super().__init__()
        if same_classes("dkd", student, teacher) < 2:
            raise ShapeError(
                f"dkd compares one class with the others, but {student.owner} has a single class; "
                "use a method that compares features, such as lshfm."
            )
        self.alpha, self.beta, self.temperature = alpha, beta, temperature
        self.standardise = standardise

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the logits."""
        return ("logits",)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; an unlabelled image takes the teacher's predicted class."""
        s, t = student["logits"], teacher["logits"]
        labels = labels_or_predictions(batch.labels, teacher)
        if self.standardise:
            s, t = standardised(s), standardised(t)
        return batch_mean(dkd(s, t, labels, self.alpha, self.beta, self.temperature))
