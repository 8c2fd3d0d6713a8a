"""Yim et al.: "A Gift from Knowledge Distillation", CVPR 2017, as in Tian et al., arXiv 1910.10699.

    L = Σₗ 1/(B·C·C') Σᵢ ‖ Gˡ(sᵢ) − Gˡ(tᵢ) ‖²,     Gˡ(x)_{cc'} = 1/N Σ_n xˡ_{cn} x^{l+1}_{c'n}

xˡ ∈ R^{C×N} and x^{l+1} ∈ R^{C'×N} are two consecutive maps of one network, the stem included,
with N = H·W positions (the larger is averaged down to the smaller), G ∈ R^{C×C'} the flow from one
to the other, B the batch. The flows of both networks are compared as they are: student and teacher
need the same channels in every compared map. Sizes may differ.

The paper trains in two stages, which are two recipes. In the first this is the only loss
(`task_weight: 0`, 30 epochs, a constant learning rate); the second is plain training that starts
from the student of the first (`student.weights: RUN`). In one stage beside the labels, which is
what a recipe without these keys does, the method works but is not the published one.

The form, one mean over all elements, is that of the code base of CRD
(github.com/HobbitLong/RepDistiller). It keeps all products before their sum, B·C·C'·N numbers;
here they are matrix products.
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
from understudy.methods._maps import OnMaps, Pairs, maps, meet, pairs
from understudy.methods._projectors import map_shape


def flow(
    first: Float[Tensor, "batch c h1 w1"], second: Float[Tensor, "batch d h2 w2"]
) -> Float[Tensor, "batch c d"]:
    """Mean over the positions of the products of every channel of two maps."""
    x, y = (z.flatten(2) for z in meet(first, second))
    return x @ y.mT / x.shape[2]


def fsp(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Float[Tensor, " batch"]:
    """Mean squared difference of the flows between consecutive maps, summed over the flows."""
    flows = zip(pairwise(student), pairwise(teacher), strict=True)
    levels = [(flow(*s) - flow(*t)).square().mean((1, 2)) for s, t in flows]
    return torch.stack(levels).sum(0)


@final
class FSP(OnMaps):
    """Flow of the solution procedure: the student's stages relate as the teacher's do.

    Published weight: 50, with a `task_weight` of 0, in a first stage of 30 epochs.

    Args:
        student: Shapes of the student; needs maps of the teacher's channels.
        teacher: Shapes of the teacher; needs maps.
        stages: Maps between which the flows are; default the stem and all stages, matched from the
            deepest backwards. Where the networks' names differ: 'stage2:stage3', the student's
            first.
    """

    published_weight: ClassVar[float] = 50.0

    def __init__(self, student: Shapes, teacher: Shapes, *, stages: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.pairs = pairs(student, teacher, stages)
        if not stages:
            self.pairs = (*pairs(student, teacher, ("stem",)), *self.pairs)
        _check(student, teacher, self.pairs)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The unweighted loss; labels are not used."""
        s, t = zip(*maps(student, teacher, self.pairs), strict=True)
        return batch_mean(fsp(s, t))


def _check(student: Shapes, teacher: Shapes, compared: Pairs) -> None:
    if len(compared) < 2:
        raise ShapeError(
            f"fsp compares flows between two maps of a network, but of {student.owner} and "
            f"{teacher.owner} it was given only {compared[0]}; name at least two by `stages`."
        )
    for s, t in compared:
        ours, theirs = map_shape(student, s)[0], map_shape(teacher, t)[0]
        if ours != theirs:
            raise ShapeError(
                f"fsp needs equal channels in every compared map, but {s!r} of {student.owner} has "
                f"{ours} and {t!r} of {teacher.owner} has {theirs}; use at or nst, which do not, "
                "or name other maps by `stages`."
            )
