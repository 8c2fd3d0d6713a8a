"""Single-label classification: softmax cross-entropy, top-1 and top-5 accuracy."""

from typing import ClassVar, final

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from understudy import metrics
from understudy.batch import UNLABELLED, Batch
from understudy.features import Features
from understudy.functional import batch_mean
from understudy.tasks._task import Task


@final
class Classification(Task):
    """One class per image."""

    headline: ClassVar[str] = "top1"

    def loss(self, student: Features, batch: Batch) -> Float[Tensor, ""]:
        """Cross-entropy, averaged over the labelled images; 0 if no image has a label.

        Where images are mixed, each label counts by the share of its image, as far as it is known.
        """
        logits, mixed = student["logits"].float(), batch.mixed
        each = _cross_entropy(logits, batch.labels, batch.smoothing)
        if mixed is None:
            return batch_mean(each, batch.labelled)
        other = _cross_entropy(logits, mixed.labels, batch.smoothing)
        known = batch.labelled | (mixed.labels != UNLABELLED)
        return batch_mean(mixed.share * each + (1 - mixed.share) * other, known)

    def metrics(
        self, logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]
    ) -> dict[str, float]:
        """Top-1 and top-5 accuracy, mean cross-entropy and expected calibration error."""
        return {
            "top1": 100 * metrics.top_k(logits, labels, k=1),
            "top5": 100 * metrics.top_k(logits, labels, k=min(5, logits.shape[1])),
            "loss": float(F.cross_entropy(logits, labels)),
            "calibration_error": metrics.calibration_error(logits, labels),
        }

    def per_class(
        self, logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]
    ) -> list[float | None]:
        """Top-1 accuracy of each class."""
        each = metrics.per_class_accuracy(logits, labels)
        return [None if accuracy is None else 100 * accuracy for accuracy in each]


def _cross_entropy(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], smoothing: float
) -> Float[Tensor, " batch"]:
    """Of each image; 0 where it has no label."""
    return F.cross_entropy(
        logits, labels, ignore_index=UNLABELLED, reduction="none", label_smoothing=smoothing
    )
