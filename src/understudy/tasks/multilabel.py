"""Multi-label recognition: every class by itself, binary cross-entropy, average precision.

    BCE        = − y log p − (1 − y) log(1 − p),     p = σ(z)
    asymmetric = − y (1 − p)^γ₊ log p − (1 − y) q^γ₋ log(1 − q),     q = max(p − m, 0)

z ∈ R^{B×K} are the logits, y whether a class is present; both are averaged over the known labels.
The asymmetric loss is that of Ridnik et al., "Asymmetric Loss For Multi-Label Classification", ICCV
2021, arXiv 2009.14119, who sum it over a batch: γ₋ makes little of the many absent classes that are
told well already, the clip m drops those below it. With γ = 0 and m = 0 it is the first.
"""

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
from understudy.tasks import _vectors
from understudy.tasks._task import Evaluation, Outputs, Task


def bce(
    logits: Float[Tensor, "images classes"], present: Bool[Tensor, "images classes"]
) -> Float[Tensor, "images classes"]:
    """Binary cross-entropy of every label."""
    return F.binary_cross_entropy_with_logits(logits, present.to(logits.dtype), reduction="none")


def asymmetric(
    logits: Float[Tensor, "images classes"],
    present: Bool[Tensor, "images classes"],
    *,
    focus_present: float,
    focus_absent: float,
    clip: float,
) -> Float[Tensor, "images classes"]:
    """Asymmetric loss of every label; finite, as are its gradients, whatever the logits."""
    # A power of zero may have no slope, so that nothing gets that small.
    missed = (-logits).sigmoid().clamp_min(EPS)
    seen = (logits.sigmoid() - clip).clamp_min(EPS)
    # The logarithm of the sigmoid is exact where 1 − p itself is rounded to 0.
    log_absent = (missed + clip).clamp_max(1).log() if clip else F.logsigmoid(-logits)
    found = missed**focus_present * F.logsigmoid(logits)
    return -torch.where(present, found, seen**focus_absent * log_absent)


@final
class MultiLabel(Task):
    """Any number of classes an image.

    Args:
        loss: Of one label.
        asymmetry: γ₊, γ₋ and m of the asymmetric one.

    Raises:
        RecipeError: Other than three of them, a negative γ, or a clip that is no share.
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
        self._each = bce if loss == "bce" else focused

    @classmethod
    def of(cls, training: Training) -> Task:
        """With the loss that a recipe names."""
        return cls(loss=training.multilabel_loss, asymmetry=training.asymmetry)

    def loss(self, student: Features, batch: Batch) -> Float[Tensor, ""]:
        """The loss averaged over all known labels; 0 if none is known."""
        return self._mean(student["logits"], batch.labels)

    def kept(self, features: Features, batch: Batch) -> Outputs:
        """Logits and penultimate features."""
        return _vectors.kept(features, batch)

    def evaluate(self, student: Outputs, teacher: Outputs | None) -> Evaluation:
        """Measures of `measured`, VOC's average precision of each class, the loss.

        Fidelity: `agreement` is the share of labels on which both decide alike, `kl` the mean
        divergence of a label's two probabilities.
        """
        close = _vectors.fidelity(student, teacher, _vectors.LABELS) if teacher else None
        labels = student["labels"]
        if "logits" not in student or not (labels == 1).any():
            return Evaluation({}, [], close)
        found, each = measured(student["logits"].float(), labels)
        found["loss"] = float(self._mean(student["logits"], labels))
        return Evaluation(found, each, close)

    def _mean(self, logits: Tensor, labels: Tensor) -> Float[Tensor, ""]:
        each = self._each(logits.float(), labels == 1)
        return batch_mean(each.flatten(), (labels != UNLABELLED).flatten())


def measured(
    logits: Float[Tensor, "images classes"], labels: Int[Tensor, "images classes"]
) -> tuple[dict[str, float], list[float | None]]:
    """Metrics in percent, and the average precision of each class; None without a positive.

    `mAP` is VOC's, over all points, `mAP_coco` COCO's; precision `P`, recall `R` and `F1` are those
    of the decisions p ≥ 0.5, over all labels (`O`) or as the mean over classes (`C`). Means over
    classes leave out those without a positive; labels that are not known count nowhere.
    """
    there, known = (labels == 1).any(0), labels != UNLABELLED
    ap = classification.voc_ap(logits, torch.where(labels == 0, -1, labels.clamp_min(0)))
    # Below every other score, what is not known is no decision, and comes after all positives.
    scores = logits.where(known, -torch.inf)
    coco = classification.coco_ap(scores, labels)
    found = {"mAP": float(ap[there].mean()), "mAP_coco": float(coco[there].mean())}
    # A probability of 0.5 is a logit of 0.
    found |= classification.coco_prf(scores, labels, 0.0, released=False)._asdict()
    each = [100 * x if some else None for x, some in zip(ap.tolist(), there.tolist(), strict=True)]
    return {name: 100 * x for name, x in found.items()}, each
