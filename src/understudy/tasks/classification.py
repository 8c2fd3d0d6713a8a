"""Single-label classification: softmax cross-entropy, top-1 and top-5 accuracy."""

from collections.abc import Sequence
from typing import ClassVar, final

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from understudy.batch import UNLABELLED, Batch
from understudy.features import Features
from understudy.functional import batch_mean
from understudy.metrics import classification
from understudy.tasks import _image_outputs
from understudy.tasks._class_weights import of_one_class
from understudy.tasks._task import Evaluation, Outcomes, Outputs, Task


@final
class Classification(Task):
    """One class per image."""

    headline: ClassVar[str] = "top1"

    def loss(
        self, student: Features, batch: Batch, class_weights: Tensor | None = None
    ) -> Float[Tensor, ""]:
        """Return the cross-entropy averaged over the labelled images; 0 if no image has a label.

        For mixed images, the cross-entropies of both labels are weighted by the images' shares; an
        unknown label contributes 0. Soft labels weight the logarithms of all classes. With weights
        of the classes each image counts by that of its label; the sum is still divided by the
        number of images, not by that of their weights, so that parts of a batch add up.
        """
        logits, mixed = student["logits"].float(), batch.mixed
        if batch.soft is not None:
            return batch_mean(F.cross_entropy(logits, batch.soft, reduction="none"))
        own = _cross_entropy(logits, batch.labels, batch.smoothing, class_weights)
        if mixed is None:
            return batch_mean(own, batch.labelled)
        other = _cross_entropy(logits, mixed.labels, batch.smoothing, class_weights)
        labelled = batch.labelled | (mixed.labels != UNLABELLED)
        return batch_mean(mixed.share * own + (1 - mixed.share) * other, labelled)

    def _weights_of(
        self, labels: Tensor, names: Sequence[str], listed: Sequence[float] | None
    ) -> Tensor:
        return of_one_class(labels, names, listed)

    def collect(self, features: Features, batch: Batch) -> Outputs:
        """Select index, labels, logits and penultimate features."""
        return _image_outputs.collect(features, batch)

    def measure(self, outputs: Outputs, *, finished: bool = False) -> Evaluation:
        """Compute top-1 and top-5 accuracy in percent, cross-entropy and calibration error."""
        labelled = outputs["labels"] != UNLABELLED
        if "logits" not in outputs or not labelled.any():
            return Evaluation({}, [], None)
        logits, labels = outputs["logits"][labelled], outputs["labels"][labelled]
        by_class = classification.per_class_accuracy(logits, labels)
        metrics = {
            "top1": 100 * classification.top_k(logits, labels, k=1),
            "top5": 100 * classification.top_k(logits, labels, k=min(5, logits.shape[1])),
            "loss": float(F.cross_entropy(logits, labels)),
            "calibration_error": classification.calibration_error(logits, labels),
        }
        return Evaluation(metrics, [None if x is None else 100 * x for x in by_class], None)

    def fidelity(
        self, student: Outputs, teacher: Outputs, *, finished: bool = False
    ) -> dict[str, float | None]:
        """Compute `_image_outputs.fidelity`.

        `agreement` is the share of images on which both networks predict the same class, `kl` the
        mean KL(teacher ‖ student).
        """
        return _image_outputs.fidelity(student, teacher, _image_outputs.SINGLE_LABEL)

    def outcomes(self, student: Outputs, teacher: Outputs | None = None) -> Outcomes | None:
        """Return which labelled images are classified correctly; None without any."""
        labelled = student["labels"] != UNLABELLED
        if "logits" not in student or not labelled.any():
            return None
        correct = student["logits"][labelled].argmax(1) == student["labels"][labelled]
        text = "".join("1" if hit else "0" for hit in correct.tolist())
        return Outcomes(self.headline, len(text), correct=text)


def _cross_entropy(
    logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"],
    smoothing: float,
    weights: Float[Tensor, " classes"] | None,
) -> Float[Tensor, " batch"]:
    """Compute the cross-entropy of each image; 0 if it has no label."""
    return F.cross_entropy(
        logits,
        labels,
        weights,
        ignore_index=UNLABELLED,
        reduction="none",
        label_smoothing=smoothing,
    )
