"""Huang et al.: "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, arXiv 2205.10536.

    L = τ² [ β ( 1 − 1/B Σᵢ ρ(yˢᵢ, yᵗᵢ) ) + γ ( 1 − 1/K Σₖ ρ(yˢ·ₖ, yᵗ·ₖ) ) ]

y = softmax(z / τ) ∈ R^{B×K} are the class probabilities of student and teacher, ρ Pearson's
correlation: over the classes of an image, and over the images of a class. B is the batch size. Code
of the authors: github.com/hunto/DIST_KD; ε = 1e-8 is added to the denominator of ρ.

Differences from the released code: a constant row or column of the student, whose correlation is
undefined, has gradient zero; the code's gradient is of the order 1e6, from 1/ε
(`spreadless="published"`). With several processes, each one correlates only its own images.
"""

from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.batch import Batch
from understudy.config.limits import NonNegative, Positive
from understudy.features import Features, Shapes
from understudy.functional import batch_mean
from understudy.methods._method import Method
from understudy.methods._shapes import same_classes

Spreadless = Literal["still", "published"]


def dist(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    beta: float = 1.0,
    gamma: float = 1.0,
    tau: Positive = 4.0,
    eps: Positive = 1e-8,
    spreadless: Spreadless = "still",
) -> Float[Tensor, " batch"]:
    """Compute τ² (β (1 − ρ of the row) + γ (1 − mean ρ of all columns)) of each row."""
    s, t = (student / tau).softmax(1), (teacher / tau).softmax(1)
    images = 1 - correlation(s, t, eps, spreadless)
    classes = 1 - correlation(s.T, t.T, eps, spreadless).mean()
    return tau**2 * (beta * images + gamma * classes)


def correlation(
    x: Float[Tensor, "rows values"],
    y: Float[Tensor, "rows values"],
    eps: Positive = 1e-8,
    spreadless: Spreadless = "still",
) -> Float[Tensor, " rows"]:
    """Compute Pearson's correlation of each row of x with that of y."""
    # Bound on the rounding error of a centred row: at or below it the row counts as constant.
    rounding = 4 * torch.finfo(x.dtype).eps * torch.linalg.vector_norm(x, dim=1, keepdim=True)
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    if spreadless == "still":
        spread = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        x = torch.where(spread > rounding, x, 0)
    # `vector_norm` has the gradient 0 at zero, where the root of a sum of squares has NaN.
    lengths = torch.linalg.vector_norm(x, dim=1) * torch.linalg.vector_norm(y, dim=1) + eps
    return (x * y).sum(1).div(lengths)


@final
class DIST(Method):
    """Relations: classes of an image, and images of a class, correlate with the teacher's.

    Published weight: 1.5 to 7, tuned for each pair of networks, with β = γ = 1 and τ = 4, in the
    code base of `nd` (DIST++), with weight 1 on the task loss.

    Args:
        student: Shapes of the student; needs `logits`.
        teacher: Shapes of the teacher; needs `logits` of the same classes.
        beta: β, weight of the correlation over the classes of an image.
        gamma: γ, weight of the correlation over the images of a class.
        tau: τ, temperature.
        eps: ε, keeps the correlation finite.
        spreadless: Gradient of a constant row or column of the student: `still` is zero,
            `published` that of the released code.
    """

    published_weight: ClassVar[float] = 2.0
    trains_classifier: ClassVar[bool] = True
    requires_softmax: ClassVar[bool] = True

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        beta: NonNegative = 1.0,
        gamma: NonNegative = 1.0,
        tau: Positive = 4.0,
        eps: Positive = 1e-8,
        spreadless: Spreadless = "still",
    ) -> None:
        super().__init__()
        same_classes("dist", student, teacher)
        self.beta, self.gamma, self.tau, self.eps = beta, gamma, tau, eps
        self.spreadless: Spreadless = spreadless

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the logits."""
        return ("logits",)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        s, t = student["logits"], teacher["logits"]
        weights = self.beta, self.gamma, self.tau, self.eps
        return batch_mean(dist(s, t, *weights, self.spreadless))
