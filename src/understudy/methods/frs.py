"""Du et al.: "Distilling Object Detectors with Feature Richness", NeurIPS 2021, arXiv 2111.00674.

    L   = Σₗ Σᵢₚ Sˡᵢₚ ‖ φˡ(sˡ)ᵢₚ − tˡᵢₚ ‖² / Σᵢₚ Sˡᵢₚ
    Sˡᵢₚ = maxₖ σ( yˡᵢₚₖ )

sˡ, tˡ are the maps at level l of both feature pyramids, i an image and p a position. yˡ are the
teacher's logits at that position: of every class and anchor, or in Faster R-CNN, whose maps have no
class scores, the objectness of every anchor. S, the feature richness, is large where the teacher
detects something, annotated or not. φˡ is a 3×3 convolution, trained with the student; as in the
authors' code (github.com/duzhixing/FRS) it is used even if the widths are equal. Their second loss,
on the scores with the same weights, is left out: it needs the same classes and anchors in both
detectors.
"""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.errors import ShapeError
from understudy.features import Features, Shapes
from understudy.functional import EPS, batch_mean, global_sum
from understudy.methods._maps import MapMethod, match_maps
from understudy.methods._projectors import map_shape


def richness(
    scores: Float[Tensor, "batch scores height width"],
) -> Float[Tensor, "batch height width"]:
    """Compute the largest score at each position, in (0, 1)."""
    return scores.sigmoid().amax(1)


def gap(
    student: Float[Tensor, "batch channels height width"],
    teacher: Float[Tensor, "batch channels height width"],
    richness: Float[Tensor, "batch height width"],
) -> Float[Tensor, " batch"]:
    """Sum the squared distance of each image's maps over positions, weighted by richness."""
    return ((student - teacher).square().sum(1) * richness).sum((1, 2))


@final
class FRS(MapMethod):
    """Feature richness: a detector's maps match the teacher's where the teacher detects something.

    Published weight: 0.002 for Faster R-CNN, 0.005 for RetinaNet, 0.01 for FCOS, with a warm-up of
    500 steps (such as `{value: 0.005, warmup_epochs: 1}`).

    Args:
        student: Shapes of the student; needs the maps.
        teacher: Shapes of the teacher; needs the maps and the scores at their positions, named
            `p3/scores` for the map `p3`.
        stages: Maps to compare, such as `[p3, p4, p5]`; default: all maps that both have.
    """

    published_weight: ClassVar[float] = 0.005

    def __init__(self, student: Shapes, teacher: Shapes, *, stages: tuple[str, ...] = ()) -> None:
        super().__init__(student, teacher)
        shared = [x for x in teacher if f"{x}/scores" in teacher and x in student]
        if not (stages or shared):
            raise ShapeError(
                f"frs weights every position of a map by the teacher's scores at that position, "
                f"but {teacher.owner} scores no map that {student.owner} has: use detectors with a "
                "feature pyramid, such as fasterrcnn, retinanet or fcos."
            )
        self.pairs = match_maps(student, teacher, stages or shared)
        layers = []
        for s_name, t_name in self.pairs:
            s, t = map_shape(student, s_name), map_shape(teacher, t_name)
            y = map_shape(teacher, f"{t_name}/scores")
            if not s[1:] == t[1:] == y[1:]:
                raise ShapeError(
                    f"{s_name!r} of {student.owner} is {s}, {t_name!r} of {teacher.owner} is {t} "
                    f"and its scores are {y}; frs compares maps position by position."
                )
            layers.append(nn.Conv2d(s[0], t[0], 3, padding=1))
        self.projectors = nn.ModuleList(layers)

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the compared maps and the scores at their positions."""
        maps = super().reads
        return (*maps, *(f"{name}/scores" for name in maps))

    def projected(self, student: Features) -> Features:
        """Return the maps after their convolutions."""
        layers = zip(self.projectors, self.pairs, strict=True)
        return {t_name: project(student[s_name]) for project, (s_name, t_name) in layers}

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        rows = []
        for project, (s_name, t_name) in zip(self.projectors, self.pairs, strict=True):
            weights = richness(teacher[f"{t_name}/scores"])
            # Σᵢₚ S over the images of all processes, divided by their number as `batch_mean` is.
            mean = global_sum(weights.sum()) / global_sum(weights.new_full((), len(weights)))
            error = gap(project(student[s_name]), teacher[t_name], weights)
            rows.append(error / mean.clamp_min(EPS))
        return batch_mean(torch.stack(rows).sum(0))
