"""Du et al.: "Distilling Object Detectors with Feature Richness", NeurIPS 2021, arXiv 2111.00674.

    L   = Σₗ Σᵢₚ Sˡᵢₚ ‖ φˡ(sˡ)ᵢₚ − tˡᵢₚ ‖² / Σᵢₚ Sˡᵢₚ
    Sˡᵢₚ = maxₖ σ( yˡᵢₚₖ )

sˡ, tˡ are the maps of one resolution of both pyramids, i an image and p a position. yˡ are the
teacher's own scores there: of every class and anchor, or in Faster R-CNN, whose maps have no
classes yet, the objectness of every anchor. S, the feature richness, is large where the teacher
sees something, annotated or not. φˡ is a 3×3 convolution, trained beside the student; as in the
authors' code (github.com/duzhixing/FRS) it is there where widths are equal, too. Their second loss,
on the scores with the same weights, is left out: it asks for the same classes and anchors in both.
"""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.errors import ShapeError
from understudy.features import Features, Shapes
from understudy.functional import EPS, batch_mean, global_sum
from understudy.methods._maps import OnMaps, pairs
from understudy.methods._projectors import map_shape


def richness(
    scores: Float[Tensor, "batch scores height width"],
) -> Float[Tensor, "batch height width"]:
    """The largest score of each position, in (0, 1)."""
    return scores.sigmoid().amax(1)


def gap(
    student: Float[Tensor, "batch channels height width"],
    teacher: Float[Tensor, "batch channels height width"],
    richness: Float[Tensor, "batch height width"],
) -> Float[Tensor, " batch"]:
    """Squared distance of each image's maps, the sum over positions weighted by richness."""
    return ((student - teacher).square().sum(1) * richness).sum((1, 2))


@final
class FRS(OnMaps):
    """Feature richness: maps of a detector equal the teacher's where that sees something.

    Published weight: 0.002 for Faster R-CNN, 0.005 for RetinaNet, 0.01 for FCOS, with a warm-up of
    500 steps (such as `{value: 0.005, warmup_epochs: 1}`).

    Args:
        student: Shapes of the student; needs the maps.
        teacher: Shapes of the teacher; needs the maps and its scores at each position, which for
            the map `p3` are `p3/scores`.
        stages: Maps to compare, such as `[p3, p4, p5]`; default all that both have.
    """

    published_weight: ClassVar[float] = 0.005

    def __init__(self, student: Shapes, teacher: Shapes, *, stages: tuple[str, ...] = ()) -> None:
        super().__init__()
        shared = [x for x in teacher if f"{x}/scores" in teacher and x in student]
        if not (stages or shared):
            raise ShapeError(
                f"frs weighs every position of a map by what the teacher scores there, and "
                f"{teacher.owner} scores no map that {student.owner} has: take detectors over a "
                "feature pyramid, such as fasterrcnn, retinanet or fcos."
            )
        self.pairs = pairs(student, teacher, stages or shared)
        layers = []
        for ours, theirs in self.pairs:
            s, t, y = (
                map_shape(*x)
                for x in ((student, ours), (teacher, theirs), (teacher, f"{theirs}/scores"))
            )
            if not s[1:] == t[1:] == y[1:]:
                raise ShapeError(
                    f"{ours!r} of {student.owner} is {s}, {theirs!r} of {teacher.owner} is {t} and "
                    f"its scores are {y}; frs compares maps position by position."
                )
            layers.append(nn.Conv2d(s[0], t[0], 3, padding=1))
        self.projectors = nn.ModuleList(layers)

    @property
    def reads(self) -> tuple[str, ...]:
        """The compared maps and the scores at their positions."""
        maps = super().reads
        return (*maps, *(f"{name}/scores" for name in maps))

    def projected(self, student: Features) -> Features:
        """What the convolutions make of the maps."""
        found = zip(self.projectors, self.pairs, strict=True)
        return {theirs: project(student[ours]) for project, (ours, theirs) in found}

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The unweighted loss; labels are not used."""
        rows = []
        for project, (ours, theirs) in zip(self.projectors, self.pairs, strict=True):
            weights = richness(teacher[f"{theirs}/scores"])
            mean = global_sum(weights.sum()) / global_sum(weights.new_full((), len(weights)))
            apart = gap(project(student[ours]), teacher[theirs], weights)
            rows.append(apart / mean.clamp_min(EPS))
        return batch_mean(torch.stack(rows).sum(0))
