"""Multi-label classification: a binary loss for every class, and average precision.

    BCE        = − y log p − (1 − y) log(1 − p),     p = σ(z)
    asymmetric = − y (1 − p)^γ₊ log p − (1 − y) q^γ₋ log(1 − q),     q = max(p − m, 0)

z ∈ R^{B×K} are the logits, y is 1 if a class is present, else 0; both losses are averaged over the
known labels. The asymmetric loss is that of Ridnik et al., "Asymmetric Loss For Multi-Label
Classification", ICCV 2021, arXiv 2009.14119, who sum it over a batch: γ₋ reduces the weight of
absent classes with a low probability, the clip m drops those with p ≤ m. With γ = 0 and m = 0 it
equals BCE.
"""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from understudy.batch import UNLABELLED, Batch
from understudy.config.recipe import Training
from understudy.errors import RecipeError
from understudy.features import Features
from understudy.functional import EPS, batch_mean
from understudy.metrics import classification
from understudy.tasks import _image_outputs
from understudy.tasks._class_weights import of_presence
from understudy.tasks._task import Evaluation, Outcomes, Outputs, Task


def bce(
    logits: Float[Tensor, "images classes"], present: Bool[Tensor, "images classes"]
) -> Float[Tensor, "images classes"]:
    """Compute the binary cross-entropy of every label."""
    return F.binary_cross_entropy_with_logits(logits, present.to(logits.dtype), reduction="none")


def asymmetric(
    logits: Float[Tensor, "images classes"],
    present: Bool[Tensor, "images classes"],
    *,
    focus_present: float,
    focus_absent: float,
    clip: float,
) -> Float[Tensor, "images classes"]:
    """Compute the asymmetric loss of every label; value and gradient are finite for all logits."""
    # Clamped, as the gradient of a power at zero may be infinite.
    one_minus_p = (-logits).sigmoid().clamp_min(EPS)
    q = (logits.sigmoid() - clip).clamp_min(EPS)
    # `logsigmoid` is exact even if 1 − p is rounded to 0.
    log_one_minus_q = (one_minus_p + clip).clamp_max(1).log() if clip else F.logsigmoid(-logits)
    if_present = one_minus_p**focus_present * F.logsigmoid(logits)
    return -torch.where(present, if_present, q**focus_absent * log_one_minus_q)


@final
class MultiLabel(Task):
    """Any number of classes per image.

    Args:
        loss: Loss of one label.
        asymmetry: γ₊, γ₋ and m of the asymmetric loss.

    Raises:
        RecipeError: `asymmetry` has not three values, a negative one, or a clip of 1 or more.
    """

    exclusive_classes: ClassVar[bool] = False
    truth: ClassVar[Literal["classes"]] = "classes"
    headline: ClassVar[str] = "mAP"

    def __init__(
        self,
        *,
        loss: Literal["bce", "asymmetric"] = "bce",
        asymmetry: tuple[float, ...] = (0.0, 4.0, 0.05),
    ) -> None:
        if len(asymmetry) != 3 or min(asymmetry) < 0 or asymmetry[2] >= 1:
            raise RecipeError(
                f"'training.asymmetry' is {list(asymmetry)}; it must be two numbers of at least 0 "
                "and a clip from 0 to below 1."
            )
        present, absent, clip = asymmetry
        focused = partial(asymmetric, focus_present=present, focus_absent=absent, clip=clip)
        self._loss = bce if loss == "bce" else focused

    @classmethod
    def of(cls, training: Training) -> Task:
        """Build the task with the loss that `training` selects."""
        return cls(loss=training.multilabel_loss, asymmetry=training.asymmetry)

    def loss(
        self, student: Features, batch: Batch, class_weights: Tensor | None = None
    ) -> Float[Tensor, ""]:
        """Return the loss averaged over all known labels; 0 if none is known.

        With weights of the classes a label counts by that of its class, absent or present.
        """
        return self._mean_loss(student["logits"], batch.labels, class_weights)

    def _weights_of(
        self, labels: Tensor, names: Sequence[str], listed: Sequence[float] | None
    ) -> Tensor:
        return of_presence(labels, names, listed)

    def collect(self, features: Features, batch: Batch) -> Outputs:
        """Select index, labels, logits and penultimate features."""
        return _image_outputs.collect(features, batch)

    def measure(self, outputs: Outputs, *, finished: bool = False) -> Evaluation:
        """Compute the metrics of `multilabel_metrics`, and the loss.

        Per class: VOC's average precision.
        """
        labels = outputs["labels"]
        if "logits" not in outputs or not (labels == 1).any():
            return Evaluation({}, [], None)
        metrics, by_class = multilabel_metrics(outputs["logits"].float(), labels)
        metrics["loss"] = float(self._mean_loss(outputs["logits"], labels))
        return Evaluation(metrics, by_class, None)

    def fidelity(
        self, student: Outputs, teacher: Outputs, *, finished: bool = False
    ) -> dict[str, float | None]:
        """Compute `_image_outputs.fidelity`.

        `agreement` is the share of labels on which both networks decide alike, `kl` the mean
        KL(teacher ‖ student) of a label.
        """
        return _image_outputs.fidelity(student, teacher, _image_outputs.MULTI_LABEL)

    def outcomes(self, student: Outputs, teacher: Outputs | None = None) -> Outcomes | None:
        """Return VOC's mean average precision on resampled test sets; None without positives."""
        labels = student["labels"]
        if "logits" not in student or not (labels == 1).any():
            return None
        resampled = classification.resampled_voc_ap(student["logits"].float(), _voc_targets(labels))
        return Outcomes(self.headline, len(labels), resampled=resampled)

    def _mean_loss(
        self, logits: Tensor, labels: Tensor, weights: Float[Tensor, "2 classes"] | None = None
    ) -> Float[Tensor, ""]:
        losses = self._loss(logits.float(), labels == 1)
        if weights is not None:
            losses = losses * torch.where(labels == 1, weights[1], weights[0])
        return batch_mean(losses.flatten(), (labels != UNLABELLED).flatten())


def _voc_targets(labels: Int[Tensor, "images classes"]) -> Int[Tensor, "images classes"]:
    """Return what `voc_ap` wants: 1, -1 and 0 for present, absent and not known."""
    return torch.where(labels == 0, -1, labels.clamp_min(0))


def multilabel_metrics(
    logits: Float[Tensor, "images classes"], labels: Int[Tensor, "images classes"]
) -> tuple[dict[str, float], list[float | None]]:
    """Compute metrics in percent, and the average precision of each class (None if no positive).

    `mAP` is VOC's, over all points, `mAP_coco` COCO's; precision `P`, recall `R` and `F1` are those
    of the decisions p ≥ 0.5, over all labels (`O`) or as the mean over classes (`C`). Means over
    classes leave out classes without a positive; unknown labels are ignored.
    """
    occurs, known = (labels == 1).any(0), labels != UNLABELLED
    ap = classification.voc_ap(logits, _voc_targets(labels))
    # A score of −∞ is never a positive decision, and ranks an unknown label after all positives.
    scores = logits.where(known, -torch.inf)
    coco = classification.coco_ap(scores, labels)
    metrics = {"mAP": float(ap[occurs].mean()), "mAP_coco": float(coco[occurs].mean())}
    # A probability of 0.5 is a logit of 0.
    metrics |= classification.coco_prf(scores, labels, 0.0, released=False)._asdict()
    by_class = [
        100 * x if positive else None
        for x, positive in zip(ap.tolist(), occurs.tolist(), strict=True)
    ]
    return {name: 100 * x for name, x in metrics.items()}, by_class
