"""Shu et al.: "Channel-wise Knowledge Distillation for Dense Prediction", arXiv 2011.13256.

    L = Σₗ τ² / (B·C) Σᵢ_c KL( softmax(tˡᵢ_c / τ) ‖ softmax(sˡᵢ_c / τ) )

ICCV 2021. sˡ, tˡ ∈ R^{B×C×N} are maps of level l of student and teacher at N positions. Each
channel of an image is a distribution over its positions: where the channel is most active. If the
widths differ, the student's map passes a 1×1 convolution; if the sizes differ, it is then resized
bilinearly to the teacher's. B is the batch size. Nothing of it needs labels.

The value is that of the authors' code, which takes the logarithm of a softmax and so underflows.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.batch import Batch
from understudy.config.limits import Positive
from understudy.features import Features, Shapes
from understudy.functional import batch_mean, kl_divergence
from understudy.methods._maps import MapMethod, last_maps
from understudy.methods._projectors import resize
from understudy.methods._tokens import aligners


def cwd(
    student: Float[Tensor, "batch channels height width"],
    teacher: Float[Tensor, "batch channels height width"],
    temperature: Positive = 1.0,
) -> Float[Tensor, " batch"]:
    """Compute τ² · KL of each channel over the positions, averaged over an image's channels."""
    s, t = student.flatten(2), teacher.flatten(2)
    return temperature**2 * kl_divergence(s, t, temperature).mean(1)


@final
class CWD(MapMethod):
    """Channel-wise: each channel is active at the same positions as the teacher's.

    Published weights: 5 with τ = 1 (a map of a segmentation network), 3 on its logits, with τ = 4.

    Args:
        student: Shapes of the student; needs maps.
        teacher: Shapes of the teacher; needs maps.
        stages: Maps to compare, such as `stage2:stage3`, the student's first; default: `patches` of
            a network that names it, else its last stage.
        temperature: τ.
    """

    published_weight: ClassVar[float] = 5.0
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "detection": {"stages": ("p3", "p4", "p5")}
    }

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        stages: tuple[str, ...] = (),
        temperature: Positive = 1.0,
    ) -> None:
        super().__init__(student, teacher)
        self.pairs, self.temperature = last_maps(student, teacher, stages), temperature
        self.aligners = aligners(student, teacher, self.pairs)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        levels = [
            cwd(resize(align(s), t.shape[2:]), t, self.temperature)
            for align, (s, t) in zip(self.aligners, self.paired_maps(student, teacher), strict=True)
        ]
        return batch_mean(torch.stack(levels).sum(0))
