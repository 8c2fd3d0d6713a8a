"""Chen et al.: "Improved Feature Distillation via Projector Ensemble", NeurIPS 2022.

arXiv 2210.15274; code of the authors: github.com/chenyd7/PEFD.

    L  = 1/B Σᵢ [ 1 − ⟨zᵢ, tᵢ⟩ / (‖zᵢ‖ ‖tᵢ‖) ],     zᵢ = 1/q Σₖ ReLU(Wₖ sᵢ + cₖ)

s ∈ R^{B×d_s}, t ∈ R^{B×d_t} are the penultimate features of student and teacher, W ∈ R^{q×d_t×d_s}
and c ∈ R^{q×d_t} the weights and biases of q projectors, B the batch size.

The ensemble is averaged after the ReLU: without a ReLU the q layers would collapse into one. A ReLU
cannot match a teacher with signed features, such as a transformer (the cosine stays below
‖max(t, 0)‖ / ‖t‖, about 0.71): use `activation="none"` for it.

Projectors may differ in depth, width and initialisation, which are equal in the paper: projector k
is then ReLU(W_k … ReLU(W_k¹ s + c_k¹) … + c_k), and z the mean of all as before.

The follow-up, "Understanding the Effects of Projectors in Knowledge Distillation" (arXiv
2310.17183), keeps this loss for features and adds a projector on logits: `kd` with `projector`.

Differences from the released code: it divides by the norms without a clamp; here a row whose
student ensemble or teacher feature is zero has the loss 1 and gradient zero, where the code has
NaN. The number of projectors, three in the code, is free. Projectors are saved with every
checkpoint.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, TypeVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.config.limits import Count, Range
from understudy.errors import RecipeError, ShapeError
from understudy.features import Features, Shapes
from understudy.functional import batch_mean, cosine, linear
from understudy.methods._method import Method

Activation = Literal["relu", "none"]
Layers = Annotated[int, Range(least=1, most=100)]
Initial = Literal["default", "orthogonal", "xavier", "kaiming"]
_T = TypeVar("_T", int, Initial)


def pefd(
    ensemble: Float[Tensor, "batch dim_t"], teacher: Float[Tensor, "batch dim_t"]
) -> Float[Tensor, " batch"]:
    """Compute 1 − cos(z, t) of each row; 1 where either is zero."""
    return 1 - cosine(ensemble, teacher)


def project(
    student: Float[Tensor, "batch dim_s"],
    weight: Float[Tensor, "projectors dim_t dim_s"],
    bias: Float[Tensor, "projectors dim_t"],
    activation: Activation = "relu",
) -> Float[Tensor, "batch dim_t"]:
    """Average activation(W s + c) over the projectors."""
    # All projectors in one matrix product.
    each = linear(student, weight.flatten(0, 1), bias.flatten()).view(-1, *bias.shape)
    return (each.relu() if activation == "relu" else each).mean(1)


@final
class PEFD(Method):
    """Projector ensemble: the mean of several projections of the student points to the teacher.

    Published weight: 25, with weight 1 on the task loss. No weight is published for multi-label
    images and detection; the defaults are smaller in proportion to those of lshfm. `depth`, `width`
    and `initial` are one value for all projectors, or a list with one value for each.

    Args:
        student: Shapes of the student; needs the vector `penultimate`.
        teacher: Shapes of the teacher; needs the vector `penultimate`.
        projectors: q; 0 compares the features directly, whose dimensions must then be equal.
        activation: Activation after each projector; `none` for teachers with signed features.
        depth: Linear layers of a projector, with ReLU between them.
        width: Hidden units of a projector of more than one layer; default: the teacher's dimension.
        initial: Initialisation of the weights: `default` of a linear layer, `orthogonal`, uniform
            (`xavier`) or normal (`kaiming`); the last three set biases to 0.
    """

    published_weight: ClassVar[float] = 25.0
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "multilabel": {"weight": 2.0},
        "detection": {"weight": 5.0},
    }

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        projectors: Annotated[int, Range(least=0, most=1000)] = 3,
        activation: Activation = "relu",
        depth: Layers | tuple[Layers, ...] = 1,
        width: Count | tuple[Count, ...] | None = None,
        initial: Initial | tuple[Initial, ...] = "default",
    ) -> None:
        super().__init__()
        dim_s, dim_t = student.vector("penultimate"), teacher.vector("penultimate")
        if projectors == 0 and dim_s != dim_t:
            raise ShapeError(
                f"pefd without projectors needs equal dimensions, but {student.owner} has {dim_s} "
                f"and {teacher.owner} has {dim_t}; set projectors to 1 or more."
            )
        self.projectors, self.activation = projectors, activation
        depths = _per_projector("depth", depth, projectors)
        widths = _per_projector("width", dim_t if width is None else width, projectors)
        initials = _per_projector("initial", initial, projectors)
        # Projectors of one layer share one weight tensor, and so one matrix product.
        flat = [each for each, layers in zip(initials, depths, strict=True) if layers == 1]
        if flat:
            weight, bias = torch.empty(len(flat), dim_t, dim_s), torch.empty(len(flat), dim_t)
            _initialise(weight, bias, flat)
            self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.deep = nn.ModuleList(
            _deep((dim_s, *[units] * (layers - 1), dim_t), each)
            for layers, units, each in zip(depths, widths, initials, strict=True)
            if layers > 1
        )

    def projected(self, student: Features) -> Features:
        """Return z, the mean of the ensemble."""
        return {"penultimate": self._mean(student["penultimate"])} if self.projectors else {}

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the penultimate feature."""
        return ("penultimate",)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        z = (self.projected(student) or student)["penultimate"]
        return batch_mean(pefd(z, teacher["penultimate"]))

    def _mean(self, s: Float[Tensor, "batch dim_s"]) -> Float[Tensor, "batch dim_t"]:
        flat = self.projectors - len(self.deep)
        mean = project(s, self.weight, self.bias, self.activation) if flat else s.new_zeros(())
        if not self.deep:
            return mean
        deep = [layers(s) for layers in self.deep]
        activated = [x.relu() if self.activation == "relu" else x for x in deep]
        return (flat * mean + torch.stack(activated).sum(0)) / self.projectors


def _deep(sizes: Sequence[int], initial: Initial) -> nn.Sequential:
    """Build linear layers with ReLU between them, none after the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layer = nn.Linear(inputs, outputs)
        with torch.no_grad():
            _initialise(layer.weight[None], layer.bias[None], [initial])
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _initialise(
    weight: Float[Tensor, "layers outputs inputs"],
    bias: Float[Tensor, "layers outputs"],
    initial: Sequence[Initial],
) -> None:
    """Initialise linear layers of equal size, in place."""
    # PyTorch's default for `nn.Linear`.
    bound = weight.shape[2] ** -0.5
    weight.uniform_(-bound, bound)
    bias.uniform_(-bound, bound)
    fill: dict[str, Callable[[Tensor], Tensor]] = {
        "orthogonal": nn.init.orthogonal_,
        "xavier": nn.init.xavier_uniform_,
        "kaiming": nn.init.kaiming_normal_,
    }
    for layer, name in enumerate(initial):
        if name != "default":
            fill[name](weight[layer])
            bias[layer].zero_()


def _per_projector(key: str, setting: _T | Sequence[_T], projectors: int) -> Sequence[_T]:
    """Return one value for each projector."""
    if not isinstance(setting, list | tuple):
        return [setting] * projectors  # type: ignore[list-item]
    if len(setting) != projectors:
        raise RecipeError(
            f"'{key}' of pefd has {len(setting)} values for {projectors} projectors; give one for "
            "each, or a single one for all."
        )
    return setting
