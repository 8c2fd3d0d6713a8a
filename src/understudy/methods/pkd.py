"""Cao et al.: "PKD: General Distillation Framework for Object Detectors", arXiv 2207.02039.

    L = Σₗ 1/2 · mean( (n(sˡ) − n(tˡ))² ),     n(x) = (x − mean) / (std + ε)

NeurIPS 2022. "Pearson correlation": sˡ, tˡ ∈ R^{B×C×H×W} are maps of level l of student and
teacher, and n takes mean and unbiased deviation of each channel over the batch and all positions.
The loss is 1 − r of each channel, but for a factor of almost 1, r being Pearson's correlation. So
the scale of a network does not matter. If the widths differ, the student's map passes a 1×1
convolution. The student's map is resized bilinearly to the teacher's, or the reverse. Nothing of it
needs labels.

Differences from the released code:
- A channel whose deviation is below ε has n = 0 and no gradient; there, a constant channel of the
  student gets gradients a million times as large as the others.
- Heights and widths are compared; there, only heights are, and a map of another width fails.

With several processes, each one takes the statistics of its own images.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.batch import Batch
from understudy.features import Features, Shapes
from understudy.functional import batch_mean
from understudy.methods._maps import MapMethod, last_maps
from understudy.methods._projectors import resize
from understudy.methods._tokens import aligners

EPS = 1e-6
"""ε."""


def pkd(
    student: Float[Tensor, "batch channels height width"],
    teacher: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, " batch"]:
    """Compute half the squared difference of the normalised maps, averaged over each image."""
    return (normalised(student) - normalised(teacher)).square().mean((1, 2, 3)) / 2


def normalised(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "*same"]:
    """Compute n: each channel at mean 0 and deviation 1 over batch and positions, or 0."""
    values = x.shape[0] * x.shape[2] * x.shape[3]
    centred = x - x.sum((0, 2, 3), keepdim=True) / max(values, 1)
    variance = centred.square().sum((0, 2, 3), keepdim=True) / max(values - 1, 1)
    varies = variance > EPS**2
    # A square root of 0 has no gradient, so the others are replaced before it.
    std = torch.where(varies, variance, 1).sqrt() + EPS
    return torch.where(varies, centred / std, 0)


@final
class PKD(MapMethod):
    """Pearson correlation: each channel of the student's maps is correlated with the teacher's.

    Published weights: 10 for each level of RetinaNet's pyramid, 6 for others.

    Args:
        student: Shapes of the student; needs maps.
        teacher: Shapes of the teacher; needs maps.
        stages: Maps to compare, such as `stage2:stage3`, the student's first; default: `patches` of
            a network that names it, else its last stage.
        resize: Whose map is resized to the size of the other's.
    """

    published_weight: ClassVar[float] = 10.0
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "detection": {"stages": ("p3", "p4", "p5")}
    }

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        stages: tuple[str, ...] = (),
        resize: Literal["student", "teacher"] = "student",
    ) -> None:
        super().__init__(student, teacher)
        self.pairs, self.resized = last_maps(student, teacher, stages), resize
        self.aligners = aligners(student, teacher, self.pairs)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        levels = []
        for align, (s, t) in zip(self.aligners, self.paired_maps(student, teacher), strict=True):
            if self.resized == "teacher":
                s, t = align(s), resize(t, s.shape[2:])
            else:
                s = resize(align(s), t.shape[2:])
            levels.append(pkd(s, t))
        return batch_mean(torch.stack(levels).sum(0))
