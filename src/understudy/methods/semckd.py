"""Chen et al.: "Cross-Layer Distillation with Semantic Calibration", AAAI 2021, arXiv 2012.03236.

    L = 1/(B·S) Σᵢ Σₗₘ αᵢₗₘ · 1/N Σ ( Rₗₘ(sₗ) − tₘ )²ᵢ,     αᵢₗ· = softmaxₘ ⟨ Qₗ(aˢᵢₗ), Kₘ(aᵗᵢₘ) ⟩

sₗ are the S stages of the student and tₘ all stages of the teacher (the larger map is
average-pooled to the size of the smaller; tₘ has N elements), R trained convolutions 1×1, 3×3, 1×1
with batch normalisation and ReLU between them, aᵢ the inner products of the flattened map of image
i with those of all images of the batch, Q and K trained two-layer perceptrons with outputs of
length 1, B the batch size: for each image, each stage of the student attends to the teacher's
stages of similar meaning. Code of the authors: github.com/DefangChen/SimKD and /SemCKD.

Differences from the released code: there a has one entry for each position in the batch, so that
the batch size is fixed, and the perceptrons learn weights for positions, which are random. Here
entries are sorted in descending order, cut to `neighbours` and padded with zeros: the loss does not
depend on the order of the batch, whose size is free. A zero output of a perceptron stays zero. With
several processes, each one compares only its own images.
"""

from itertools import product
from typing import Annotated, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.batch import Batch
from understudy.config.limits import Range
from understudy.features import Features, Shapes
from understudy.functional import batch_mean, unit
from understudy.methods._maps import to_smaller_size
from understudy.methods._method import Method
from understudy.methods._projectors import BatchNorm, map_shape


def semckd(
    attention: Float[Tensor, "batch student teacher"], error: Float[Tensor, "batch student teacher"]
) -> Float[Tensor, " batch"]:
    """Weight the errors of all pairs of stages by α and average over the student's stages."""
    return (attention * error).sum(2).mean(1)


def attend(
    queries: Float[Tensor, "batch student dim"], keys: Float[Tensor, "batch teacher dim"]
) -> Float[Tensor, "batch student teacher"]:
    """Compute α: a softmax over the teacher's stages of inner products of unit vectors."""
    return (unit(queries) @ unit(keys).mT).softmax(2)


def similarities(
    x: Float[Tensor, "batch channels height width"], count: int
) -> Float[Tensor, "batch count"]:
    """Compute a: the `count` largest products of each map with the batch, padded with zeros."""
    x = x.flatten(1)
    # Sorted, so that the result does not depend on the order of the batch.
    largest = (x @ x.T).sort(1, descending=True).values[:, :count]
    return F.pad(largest, (0, count - largest.shape[1]))


@final
class SemCKD(Method):
    """Semantic calibration: each student stage learns from the teacher stages of similar meaning.

    Published weight: 400, with weight 1 on the task loss and `kd` of weight 1.

    Args:
        student: Shapes of the student; needs stages that are maps or grids of tokens.
        teacher: Shapes of the teacher; needs such stages.
        neighbours: Length of a, the number of similarities that describe a stage of an image; as
            published, the batch size.
    """

    published_weight: ClassVar[float] = 400.0

    def __init__(
        self, student: Shapes, teacher: Shapes, *, neighbours: Annotated[int, Range(least=8)] = 64
    ) -> None:
        super().__init__(student, teacher)
        self.neighbours = neighbours
        self.student_stages, self.teacher_stages = student.stages, teacher.stages
        self.queries = nn.ModuleList(_perceptron(neighbours) for _ in self.student_stages)
        self.keys = nn.ModuleList(_perceptron(neighbours) for _ in self.teacher_stages)
        inputs = [map_shape(student, name)[0] for name in self.student_stages]
        outputs = [map_shape(teacher, name)[0] for name in self.teacher_stages]
        # One regressor for each pair (l, m), in the order of `product`, as in `loss`.
        self.regressors = nn.ModuleList(_regressor(*pair) for pair in product(inputs, outputs))

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: all stages."""
        return self.teacher_stages

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        s = [self.student_as_map(student, name) for name in self.student_stages]
        t = [self.teacher_as_map(teacher, name) for name in self.teacher_stages]
        queries, keys = self._embedded(self.queries, s), self._embedded(self.keys, t)
        errors = [
            _error(regressor, *to_smaller_size(s_l, t_m))
            for regressor, (s_l, t_m) in zip(self.regressors, product(s, t), strict=True)
        ]
        error = torch.stack(errors, 1).view(-1, len(s), len(t))
        return batch_mean(semckd(attend(queries, keys), error))

    def _embedded(self, layers: nn.ModuleList, maps: list[Tensor]) -> Tensor:
        """Apply Q or K to the similarities of every stage."""
        pairs = zip(layers, maps, strict=True)
        return torch.stack([layer(similarities(x, self.neighbours)) for layer, x in pairs], 1)


def _error(regressor: nn.Module, s: Tensor, t: Tensor) -> Float[Tensor, " batch"]:
    difference: Tensor = regressor(s) - t
    return difference.square().mean((1, 2, 3))


def _perceptron(inputs: int) -> nn.Sequential:
    outputs = inputs // 4
    return nn.Sequential(nn.Linear(inputs, 2 * outputs), nn.ReLU(), nn.Linear(2 * outputs, outputs))


def _regressor(inputs: int, outputs: int) -> nn.Sequential:
    middle = 2 * outputs
    return nn.Sequential(
        nn.Conv2d(inputs, middle, 1, bias=False),
        BatchNorm(middle),
        nn.ReLU(),
        nn.Conv2d(middle, middle, 3, padding=1, bias=False),
        BatchNorm(middle),
        nn.ReLU(),
        nn.Conv2d(middle, outputs, 1, bias=False),
    )
