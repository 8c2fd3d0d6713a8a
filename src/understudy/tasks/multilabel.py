"""Multi-label recognition: every class by itself, binary cross-entropy, average precision."""

from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from understudy import metrics
from understudy.batch import UNLABELLED, Batch
from understudy.features import Features
from understudy.functional import batch_mean
from understudy.tasks import _vectors
from understudy.tasks._task import Evaluation, Outputs, Task


@final
class MultiLabel(Task):
    """Any number of classes an image."""

    exclusive: ClassVar[bool] = False
    truth: ClassVar[Literal["classes"]] = "classes"
    headline: ClassVar[str] = "mAP"

    def loss(self, student: Features, batch: Batch) -> Float[Tensor, ""]:
        """Binary cross-entropy, averaged over all known labels; 0 if none is known."""
        known = batch.labels != UNLABELLED
        each = F.binary_cross_entropy_with_logits(
            student["logits"].float(), (batch.labels == 1).float(), reduction="none"
        )
        return batch_mean(each.flatten(), known.flatten())

    def kept(self, features: Features, batch: Batch) -> Outputs:
        """Logits and penultimate features."""
        return _vectors.kept(features, batch)

    def evaluate(self, student: Outputs, teacher: Outputs | None) -> Evaluation:
        """Mean average precision as in VOC, in percent."""
        close = _vectors.fidelity(student, teacher, _vectors.DIRECTION) if teacher else None
        targets = torch.where(student["labels"] == 0, -1, student["labels"].clamp_min(0))
        each = 100 * metrics.voc_ap(student["logits"], targets)
        return Evaluation({"mAP": float(each.mean())}, each.tolist(), close)
