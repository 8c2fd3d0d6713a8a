"""Single-label classification: softmax cross-entropy, top-1 and top-5 accuracy."""

from typing import ClassVar, final

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from understudy.batch import UNLABELLED, Batch
from understudy.features import Features
from understudy.functional import batch_mean
from understudy.metrics import classification
from understudy.tasks import _vectors
from understudy.tasks._task import Evaluation, Outputs, Task


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

    def kept(self, features: Features, batch: Batch) -> Outputs:
        """Logits and penultimate features."""
        return _vectors.kept(features, batch)

    def evaluate(self, student: Outputs, teacher: Outputs | None) -> Evaluation:
        """Top-1 and top-5 accuracy in percent, mean cross-entropy and expected calibration error.

        Fidelity: `agreement` is the share of images with the teacher's predicted class, `kl` that
        of the student's distribution from the teacher's.
        """
        close = _vectors.fidelity(student, teacher, _vectors.CLASSES) if teacher else None
        labelled = student["labels"] != UNLABELLED
        if "logits" not in student or not labelled.any():
            return Evaluation({}, [], close)
        logits, labels = student["logits"][labelled], student["labels"][labelled]
        each = classification.per_class_accuracy(logits, labels)
        found = {
            "top1": 100 * classification.top_k(logits, labels, k=1),
            "top5": 100 * classification.top_k(logits, labels, k=min(5, logits.shape[1])),
            "loss": float(F.cross_entropy(logits, labels)),
            "calibration_error": classification.calibration_error(logits, labels),
        }
        return Evaluation(found, [None if x is None else 100 * x for x in each], close)


def _cross_entropy(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], smoothing: float
) -> Float[Tensor, " batch"]:
    """Of each image; 0 where it has no label."""
    return F.cross_entropy(
        logits, labels, ignore_index=UNLABELLED, reduction="none", label_smoothing=smoothing
    )
