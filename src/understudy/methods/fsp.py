"""Yim et al.: "A Gift from Knowledge Distillation", CVPR 2017, as in Tian et al., arXiv 1910.10699.

    L = Σₗ 1/(B·C·C') Σᵢ ‖ Gˡ(sᵢ) − Gˡ(tᵢ) ‖²,     Gˡ(x)_{cc'} = 1/N Σ_n xˡ_{cn} x^{l+1}_{c'n}

xˡ ∈ R^{C×N} and x^{l+1} ∈ R^{C'×N} are two consecutive maps of one network, the stem included,
with N = H·W positions (the larger map is average-pooled to the size of the smaller), G ∈ R^{C×C'}
the flow from one to the other, B the batch size. Flows are compared without a projector: student
and teacher need the same channels in every compared map. Sizes may differ.

The paper trains in two stages, which are two recipes. In the first, this is the only loss
(`task_weight: 0`, 30 epochs, a constant learning rate); the second is plain training that starts
from the student of the first (`student.weights: RUN`). A recipe without these keys adds this loss
to the task loss in a single stage: that works, but is not the published method.

The form, one mean over all elements, is that of the code base of CRD
(github.com/HobbitLong/RepDistiller). That code stores all products before it sums them, B·C·C'·N
numbers; here a matrix product sums them.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.batch import Batch
from understudy.errors import ShapeError
from understudy.features import Features, Shapes
from understudy.functional import batch_mean
from understudy.methods._maps import MapMethod, Pairs, match_maps, to_smaller_size
from understudy.methods._projectors import map_shape


def flow(
    first: Float[Tensor, "batch c h1 w1"], second: Float[Tensor, "batch d h2 w2"]
) -> Float[Tensor, "batch c d"]:
    """Compute G: products of all pairs of channels of two maps, averaged over positions."""
    x, y = (z.flatten(2) for z in to_smaller_size(first, second))
    return x @ y.mT / x.shape[2]


def fsp(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Float[Tensor, " batch"]:
    """Sum the mean squared differences of the flows between consecutive maps."""
    flows = zip(pairwise(student), pairwise(teacher), strict=True)
    levels = [(flow(*s) - flow(*t)).square().mean((1, 2)) for s, t in flows]
    return torch.stack(levels).sum(0)


@final
class FSP(MapMethod):
    """Flow of the solution procedure: Gram matrices between stages match the teacher's.

    Published weight: 50, with `task_weight` 0, in a first stage of 30 epochs.

    Args:
        student: Shapes of the student; needs maps with the teacher's channels.
        teacher: Shapes of the teacher; needs maps.
        stages: Maps between which flows are computed; default: the stem and all stages, matched
            from the deepest backwards. If the networks' names differ: 'stage2:stage3', the
            student's first.
    """

    published_weight: ClassVar[float] = 50.0

    def __init__(self, student: Shapes, teacher: Shapes, *, stages: tuple[str, ...] = ()) -> None:
        super().__init__(student, teacher)
        self.pairs = match_maps(student, teacher, stages)
        # The stem counts as a stage only in this method.
        if not stages:
            self.pairs = (*match_maps(student, teacher, ("stem",)), *self.pairs)
        _check(student, teacher, self.pairs)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        s, t = zip(*self.paired_maps(student, teacher), strict=True)
        return batch_mean(fsp(s, t))


def _check(student: Shapes, teacher: Shapes, pairs: Pairs) -> None:
    if len(pairs) < 2:
        raise ShapeError(
            f"fsp compares flows between two maps of a network, but `stages` names only {pairs[0]} "
            f"of {student.owner} and {teacher.owner}; name at least two."
        )
    for s, t in pairs:
        student_channels, teacher_channels = map_shape(student, s)[0], map_shape(teacher, t)[0]
        if student_channels != teacher_channels:
            raise ShapeError(
                f"fsp needs equal channels in every compared map, but {s!r} of {student.owner} has "
                f"{student_channels} and {t!r} of {teacher.owner} has {teacher_channels}; use at "
                "or nst, which do not need them, or name other maps by `stages`."
            )
