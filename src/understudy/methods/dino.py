"""Siméoni et al.: "DINOv3", 2025, arXiv 2508.10104; Caron et al.: "DINO", arXiv 2104.14294.

    L = − 1/(B·P) Σ_{(v,w)} Σᵢₖ Pᵂᵢₖ log softmax(sᵛᵢ / τ_s)ₖ
    P = Sinkhorn( exp(t / τ_t) )

sᵛ, tʷ ∈ R^{B×K} are scores of K prototypes for view v of the student and w of the teacher, (v, w)
the P pairs of views. Sinkhorn's iteration scales the teacher's scores in turn so that every
prototype is used equally often over all images and views, and so that the scores of every image sum
to 1: no prototype can take all images. In distillation, a student has a head of its own with as
many prototypes as the teacher's. Nothing of it needs labels.

The method compares one view, in which the logits of both networks are the scores. Checkpoints of
DINOv3 are published without heads: their teachers have no scores, and are compared by their
features; any teacher with logits can be used.

With several processes, prototypes are balanced over the images of all. Computed with logarithms,
the iteration stays finite for scores of any size.
"""

from typing import ClassVar, final

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from understudy.batch import Batch
from understudy.config.limits import Count, Positive
from understudy.features import Features, Shapes
from understudy.functional import batch_mean, global_sum, is_distributed
from understudy.methods._method import Method
from understudy.methods._shapes import same_classes


def sinkhorn(
    scores: Float[Tensor, "rows prototypes"],
    temperature: Positive = 0.07,
    iterations: Count = 3,
) -> Float[Tensor, "rows prototypes"]:
    """Compute P: probabilities of each row, balanced over the rows of all processes."""
    log = scores / temperature
    for _ in range(iterations):
        log = log - _log_of_sum(log)
        log = log.log_softmax(1)
    return log.exp()


def _log_of_sum(log: Float[Tensor, "rows prototypes"]) -> Float[Tensor, " prototypes"]:
    """Compute for each prototype the logarithm of the sum over the rows of all processes."""
    # A row more, so that there is a maximum in an empty batch too.
    least = log.new_full((1, log.shape[1]), torch.finfo(log.dtype).min)
    most = torch.cat([log, least]).amax(0)
    if is_distributed():
        dist.all_reduce(most, dist.ReduceOp.MAX)
    return most + global_sum((log - most).exp().sum(0)).log()


def dino(
    student: Float[Tensor, "views_s batch prototypes"],
    probabilities: Float[Tensor, "views_t batch prototypes"],
    temperature: Positive = 0.1,
    *,
    other_views: bool = False,
) -> Float[Tensor, " batch"]:
    """Compute the cross-entropy of each image, averaged over the pairs of views.

    Args:
        student: Scores of the student for each of its views.
        probabilities: P of the teacher's views.
        temperature: τ_s.
        other_views: Leave out pairs of the same view: equal numbers in both networks.
    """
    log = F.log_softmax(student / temperature, dim=-1)
    pairs = -torch.einsum("vbk,wbk->vwb", log, probabilities)
    ours, theirs = pairs.shape[:2]
    if not other_views:
        return pairs.mean((0, 1))
    same = torch.eye(ours, theirs, dtype=torch.bool, device=pairs.device)
    others = max(ours * theirs - min(ours, theirs), 1)
    return torch.where(same.unsqueeze(2), 0, pairs).sum((0, 1)) / others


@final
class DINO(Method):
    """Balanced prototypes: the student's logits follow the teacher's, each used equally often.

    Published weight: 1. The teacher's temperature rises from 0.04 to 0.07.

    Args:
        student: Shapes of the student; needs `logits`.
        teacher: Shapes of the teacher; needs as many `logits`.
        temperature: τ_s.
        teacher_temperature: τ_t.
        iterations: Iterations of Sinkhorn.
    """

    trains_classifier: ClassVar[bool] = True
    requires_softmax: ClassVar[bool] = True

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        temperature: Positive = 0.1,
        teacher_temperature: Positive = 0.07,
        iterations: Count = 3,
    ) -> None:
        super().__init__()
        same_classes("dino", student, teacher)
        self.temperature, self.teacher_temperature = temperature, teacher_temperature
        self.iterations = iterations

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the logits."""
        return ("logits",)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        p = sinkhorn(teacher["logits"], self.teacher_temperature, self.iterations)
        rows = dino(student["logits"].unsqueeze(0), p.unsqueeze(0), self.temperature)
        return batch_mean(rows)
