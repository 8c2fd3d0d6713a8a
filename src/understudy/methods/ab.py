"""Heo et al.: "Knowledge Transfer via Distillation of Activation Boundaries", AAAI 2019.

arXiv 1811.03233.

    L = Σₗ 2^{l−m} · 3/1000 · 1/B Σᵢ ‖ max(0, 1 − yᵢˡ ∘ r(sᵢˡ)) ‖²,   yˡ = 1 where tˡ > 0, else −1

sˡ, tˡ are stage l = 1 … m of student and teacher before the last activation, r the connector to
the teacher's shape, B the batch. The norm is the sum over all elements: each neuron of the student
is pushed to the teacher's side of zero, beyond a margin of 1. A connector is nothing where the
shapes are equal, else a convolution and batch normalisation, as in the code base of CRD
(github.com/HobbitLong/RepDistiller), which also gives 3/1000 and the weights of the stages.

The paper trains in two stages, which are two recipes. In the first this is the only loss
(`task_weight: 0`, 30 epochs, a constant learning rate); the second is plain training that starts
from the student of the first (`student.weights: RUN`). In one stage beside the labels, which is
what a recipe without these keys does, the method works but is not the published one.

Where this departs from that code: wide residual networks and ShuffleNets are read without a second
pass through their norms, which in that code counts in their running statistics twice.
"""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.features import Features, Shapes
from understudy.functional import batch_mean
from understudy.methods._maps import OnMaps, Pairs, maps, pairs
from understudy.methods._projectors import map_regressor, map_shape

SCALE = 3 / 1000


def ab(
    student: Float[Tensor, "batch channels height width"],
    teacher: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, " batch"]:
    """Squared hinge of the student against the sign of the teacher, summed over all elements."""
    # Not `torch.where`, which takes four times as long on a CPU.
    side = 2 * (teacher > 0).to(student.dtype) - 1
    return (1 - side * student).relu().square().flatten(1).sum(1)


@final
class AB(OnMaps):
    """Activation boundaries: the student's neurons are active where the teacher's are.

    Published weight: 1, with a `task_weight` of 0, in a first stage of 30 epochs.

    Args:
        student: Shapes of the student; needs maps before an activation.
        teacher: Shapes of the teacher; needs maps before an activation.
        stages: Maps to compare; default all 'stage1/preact' and so on, matched from the deepest
            backwards. Where the networks' names differ: 'stage2/preact:stage3/preact', the
            student's first.
    """

    published_weight: ClassVar[float] = 1.0

    def __init__(self, student: Shapes, teacher: Shapes, *, stages: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.pairs = pairs(student, teacher, stages, ours="/preact", theirs="/preact")
        self.connectors = _connectors(student, teacher, self.pairs)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The unweighted loss; labels are not used."""
        levels = [
            2.0 ** (number - len(self.pairs)) * ab(connect(s), t)
            for number, (connect, (s, t)) in enumerate(
                zip(self.connectors, maps(student, teacher, self.pairs), strict=True), 1
            )
        ]
        return SCALE * batch_mean(torch.stack(levels).sum(0))


def _connectors(student: Shapes, teacher: Shapes, compared: Pairs) -> nn.ModuleList:
    shapes = [(map_shape(student, s), map_shape(teacher, t)) for s, t in compared]
    return nn.ModuleList(
        nn.Identity() if ours == theirs else map_regressor(ours, theirs)[:2]  # without the ReLU
        for ours, theirs in shapes
    )
