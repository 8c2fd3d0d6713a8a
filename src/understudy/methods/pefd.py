"""Chen et al.: "Improved Feature Distillation via Projector Ensemble", NeurIPS 2022.

arXiv 2210.15274; code of the authors: github.com/chenyd7/PEFD.

    L  = 1/B Σᵢ [ 1 − ⟨zᵢ, tᵢ⟩ / (‖zᵢ‖ ‖tᵢ‖) ],     zᵢ = 1/q Σₖ ReLU(Wₖ sᵢ + cₖ)

s ∈ R^{B×d_s}, t ∈ R^{B×d_t} are the penultimate features of student and teacher, W ∈ R^{q×d_t×d_s}
and c ∈ R^{q×d_t} the q projectors, B the batch.

The ensemble is averaged after the ReLU: without it the q layers collapse into one. A ReLU cannot
follow a teacher whose features are signed, as a transformer's are (the cosine stays below
‖max(t, 0)‖ / ‖t‖, about 0.71): use `activation="none"` there.

The follow-up, "Understanding the Effects of Projectors in Knowledge Distillation" (arXiv
2310.17183), keeps this loss for features and adds a projector on logits: `kd` with `projector`.

Where this departs from the released code, which divides by the norms as they are: a row whose
student ensemble or teacher is zero has the loss 1 and no gradient, where the code has NaN; the
number of projectors, three in the code, is free; projectors are saved with every checkpoint.
"""

from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.errors import RecipeError, ShapeError
from understudy.features import Features, Shapes
from understudy.functional import batch_mean, cosine, linear
from understudy.methods._method import Method

Activation = Literal["relu", "none"]


def pefd(
    ensemble: Float[Tensor, "batch dim_t"], teacher: Float[Tensor, "batch dim_t"]
) -> Float[Tensor, " batch"]:
    """1 − cos(z, t) of each row; 1 where either is zero."""
    return 1 - cosine(ensemble, teacher)


def project(
    student: Float[Tensor, "batch dim_s"],
    weight: Float[Tensor, "projectors dim_t dim_s"],
    bias: Float[Tensor, "projectors dim_t"],
    activation: Activation = "relu",
) -> Float[Tensor, "batch dim_t"]:
    """Mean over the projectors of activation(W s + c)."""
    each = linear(student, weight.flatten(0, 1), bias.flatten()).view(-1, *bias.shape)
    return (each.relu() if activation == "relu" else each).mean(1)


@final
class PEFD(Method):
    """Projector ensemble: the mean of several projections of the student points to the teacher.

    Published weight: 25, beside 1 on the labels.

    Args:
        student: Shapes of the student; needs the vector `penultimate`.
        teacher: Shapes of the teacher; needs the vector `penultimate`.
        projectors: q; 0 compares the features as they are, which must then have equal dimensions.
        activation: What follows each linear layer; `none` for teachers with signed features.
    """

    published_weight: ClassVar[float] = 25.0

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        projectors: int = 3,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        if projectors < 0:
            raise RecipeError(f"'projectors' of pefd is {projectors}; it must be at least 0.")
        ours, theirs = student.vector("penultimate"), teacher.vector("penultimate")
        if projectors == 0 and ours != theirs:
            raise ShapeError(
                f"pefd without projectors needs equal dimensions, but {student.owner} has {ours} "
                f"and {teacher.owner} has {theirs}; set projectors to 1 or more."
            )
        self.projectors, self.activation = projectors, activation
        if projectors:
            # The initial values of q separate `nn.Linear(ours, theirs)`.
            weight, bias = torch.empty(projectors, theirs, ours), torch.empty(projectors, theirs)
            bound = ours**-0.5
            self.weight = nn.Parameter(weight.uniform_(-bound, bound))
            self.bias = nn.Parameter(bias.uniform_(-bound, bound))

    def projected(self, student: Features) -> Features:
        """The mean of the ensemble."""
        if not self.projectors:
            return {}
        s = student["penultimate"]
        return {"penultimate": project(s, self.weight, self.bias, self.activation)}

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The unweighted loss; labels are not used."""
        z = (self.projected(student) or student)["penultimate"]
        return batch_mean(pefd(z, teacher["penultimate"]))
