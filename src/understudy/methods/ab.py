"""Heo et al.: "Knowledge Transfer via Distillation of Activation Boundaries", AAAI 2019.

arXiv 1811.03233.

    L = Σₗ 2^{l−m} · 3/1000 · 1/B Σᵢ ‖ max(0, 1 − yᵢˡ ∘ r(sᵢˡ)) ‖²,   yˡ = 1 where tˡ > 0, else −1

sˡ, tˡ are stage l = 1 … m of student and teacher before the last activation, r the connector to
the teacher's shape, B the batch size. The norm sums over all elements: each neuron of the student
is pushed to the teacher's side of zero, with a margin of 1. The connector is the identity if the
shapes are equal, else a convolution and batch normalisation, as in the code base of CRD
(github.com/HobbitLong/RepDistiller), which also gives 3/1000 and the weights of the stages. Maps
whose sizes that code does not know meet as in `fitnet`: the student's is resized bilinearly.

The paper trains in two stages, which are two recipes. In the first, this is the only loss
(`task_weight: 0`, 30 epochs, a constant learning rate); the second is plain training that starts
from the student of the first (`student.weights: RUN`). A recipe without these keys adds this loss
to the task loss in a single stage: that works, but is not the published method.

Difference from that code: wide residual networks and ShuffleNets are not passed through their norm
layers a second time, which in that code updates the running statistics twice.
"""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.features import Features, Shapes
from understudy.functional import batch_mean
from understudy.methods._maps import MapMethod, Pairs, match_maps
from understudy.methods._projectors import map_regressor, map_shape

SCALE = 3 / 1000
"""Factor of the loss in the code base of CRD."""


def ab(
    student: Float[Tensor, "batch channels height width"],
    teacher: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, " batch"]:
    """Compute the squared hinge loss against the teacher's sign, summed over all elements."""
    # ±1 by arithmetic: `torch.where` takes four times as long on a CPU.
    side = 2 * (teacher > 0).to(student.dtype) - 1
    return (1 - side * student).relu().square().flatten(1).sum(1)


@final
class AB(MapMethod):
    """Activation boundaries: the student's neurons are active where the teacher's are.

    Published weight: 1, with `task_weight` 0, in a first stage of 30 epochs.

    Args:
        student: Shapes of the student; needs pre-activation maps.
        teacher: Shapes of the teacher; needs pre-activation maps.
        stages: Maps to compare; default: all pre-activations 'stage1/preact' and so on, matched
            from the deepest backwards. If the networks' names differ:
            'stage2/preact:stage3/preact', the student's first. Needed for a network whose stages
            end in no activation, such as a MobileNet.
    """

    published_weight: ClassVar[float] = 1.0

    def __init__(self, student: Shapes, teacher: Shapes, *, stages: tuple[str, ...] = ()) -> None:
        super().__init__(student, teacher)
        self.pairs = match_maps(
            student, teacher, stages, student_suffix="/preact", teacher_suffix="/preact"
        )
        self.connectors = _connectors(student, teacher, self.pairs)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        compared = zip(self.connectors, self.paired_maps(student, teacher), strict=True)
        levels = [
            # 2^{l−m}: the deepest stage has weight 1, each earlier one half of the next.
            2.0 ** (number - len(self.pairs)) * ab(connect(s), t)
            for number, (connect, (s, t)) in enumerate(compared, start=1)
        ]
        return SCALE * batch_mean(torch.stack(levels).sum(0))


def _connectors(student: Shapes, teacher: Shapes, pairs: Pairs) -> nn.ModuleList:
    return nn.ModuleList(_connector(student, teacher, s, t) for s, t in pairs)


def _connector(student: Shapes, teacher: Shapes, s: str, t: str) -> nn.Module:
    if map_shape(student, s) == map_shape(teacher, t):
        return nn.Identity()
    # `[:2]` leaves out the regressor's ReLU: what is compared are pre-activations.
    return map_regressor(student, teacher, (s, t))[:2]
