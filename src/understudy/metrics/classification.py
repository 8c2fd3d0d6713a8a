"""How good predictions are, and how close the student's outputs are to the teacher's.

Pure functions of tensors. Shares and average precisions lie in [0, 1]; the measures of multi-label
classification follow the protocols of VOC 2010 and of LSHFM's code, and are given per class.
Linear CKA is `understudy.functional.linear_cka`.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy import functional
from understudy.functional import kl_divergence, norm

_TINY = 1e-8
"""What LSHFM's code adds to the denominators of precision and recall."""

Points = Literal["all", "eleven"]
"""Recalls that VOC averages precision over: all (since 2010), or 0, 0.1, …, 1 (until 2009)."""


def top_k(
    logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"], k: int = 1
) -> float:
    """Share of images whose label is among the `k` highest logits."""
    return _mean((logits.topk(k, dim=1).indices == labels.unsqueeze(1)).any(1))


def per_class_accuracy(
    logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]
) -> list[float | None]:
    """Share of each class's images classified correctly; None for a class without images."""
    classes = logits.shape[1]
    total = labels.bincount(minlength=classes).tolist()
    right = labels[logits.argmax(1) == labels].bincount(minlength=classes).tolist()
    return [r / n if n else None for r, n in zip(right, total, strict=True)]


def calibration_error(
    logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"], bins: int = 15
) -> float:
    """Expected calibration error: |accuracy − confidence|, averaged over equal bins of confidence.

    Guo et al., "On Calibration of Modern Neural Networks", 2017. A bin holds its upper edge.
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    gap = (predicted == labels).double() - confidence
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=logits.device)
    index = (torch.bucketize(confidence, edges) - 1).clamp(0, bins - 1)
    sums = gap.new_zeros(bins).index_add_(0, index, gap)
    return float(sums.abs().sum() / max(len(labels), 1))


def voc_ap(
    scores: Float[Tensor, "images classes"],
    targets: Int[Tensor, "images classes"],
    *,
    points: Points = "all",
) -> Float[Tensor, " classes"]:
    """Average precision of each class, from the monotone envelope; 0 without positives.

    Args:
        scores: Higher means more confident.
        targets: 1 where the class is present, -1 where it is not, 0 to leave an image out.
        points: Recalls to average over.
    """
    return torch.stack([_voc(s, t, points) for s, t in zip(scores.T, targets.T, strict=True)])


def average_precision(
    hits: Int[Tensor, " ranks"],
    precision: Float[Tensor, " ranks"],
    positives: int,
    points: Points = "all",
) -> Float[Tensor, ""]:
    """Average precision as in VOC: the mean of the envelope over recall.

    Args:
        hits: How many of the positives are found down to each rank.
        precision: At each rank.
        positives: How many there are to find; at least 1.
        points: Recalls to average over.
    """
    if points == "eleven":
        return at_recalls(hits, precision, positives, steps=10).mean()
    gained = hits.diff(prepend=hits.new_zeros(1))
    return (gained * _envelope(precision)[:-1]).sum() / positives


def at_recalls(
    hits: Int[Tensor, " ranks"], precision: Float[Tensor, " ranks"], positives: int, *, steps: int
) -> Float[Tensor, " points"]:
    """The envelope at recalls 0, 1/steps, …, 1; 0 where the recall is not reached.

    Recalls are compared as whole numbers, so that 3 of 10 is a recall of 0.3. Arguments are those
    of `average_precision`.
    """
    asked = torch.arange(steps + 1, device=hits.device) * positives
    return _envelope(precision)[torch.searchsorted(steps * hits, asked)]


def coco_ap(
    scores: Float[Tensor, "images classes"], targets: Int[Tensor, "images classes"]
) -> Float[Tensor, " classes"]:
    """Average precision of each class: precision averaged over the ranks of its positives.

    Args:
        scores: Higher means more confident.
        targets: 1 where the class is present, 0 where it is not.
    """
    hits = _sorted(scores, targets == 1).double()
    ranks = torch.arange(1, len(hits) + 1, device=hits.device).unsqueeze(1)
    return (hits * hits.cumsum(0) / ranks).sum(0) / (hits.sum(0) + _TINY)


class PrecisionRecall(NamedTuple):
    """Precision, recall and their F1 over all decisions (`O`) and averaged over classes (`C`)."""

    OP: float
    OR: float
    OF1: float
    CP: float
    CR: float
    CF1: float


def coco_prf(
    scores: Float[Tensor, "images classes"],
    targets: Int[Tensor, "images classes"],
    threshold: float = 0.5,
    *,
    released: bool = True,
) -> PrecisionRecall:
    """Precision and recall of the decision `score >= threshold`.

    A class that is never predicted has precision 0.

    Args:
        scores: Higher means more confident.
        targets: 1 where the class is present.
        threshold: Of the decision.
        released: As in the released code, where one class without positives makes `CR` and `CF1`
            NaN. Otherwise `CP`, `CR` and `CF1` are over the classes with positives, and all is
            finite.
    """
    chosen, present = scores >= threshold, targets == 1
    hits, predicted, real = (x.double().sum(0) for x in (chosen & present, chosen, present))
    fewest = 0 if released else 1
    averaged = real >= fewest
    overall = hits.sum() / predicted.sum().clamp_min(1), hits.sum() / real.sum().clamp_min(fewest)
    each = hits / predicted.clamp_min(1), hits / real
    per_class = tuple(x[averaged].sum() / averaged.sum().clamp_min(fewest) for x in each)
    return PrecisionRecall(
        *(float(x) for pair in (overall, per_class) for x in (*pair, _f1(*pair)))
    )


def batch_pr(
    scores: Float[Tensor, "images classes"],
    targets: Int[Tensor, "images classes"],
    threshold: float = 0.5,
) -> tuple[float, float]:
    """Precision and recall over all decisions `score > threshold`."""
    chosen, present = scores > threshold, targets == 1
    hits = (chosen & present).sum()
    return float(hits / (chosen.sum() + _TINY)), float(hits / (present.sum() + _TINY))


def agreement(
    student: Float[Tensor, "images classes"], teacher: Float[Tensor, "images classes"]
) -> float:
    """Share of images on which both name the same class."""
    return _mean(student.argmax(1) == teacher.argmax(1))


def kl(student: Float[Tensor, "images classes"], teacher: Float[Tensor, "images classes"]) -> float:
    """Mean KL divergence of the student's probabilities from the teacher's, in nats."""
    return _mean(kl_divergence(student.double(), teacher.double()))


def cosine_mean(
    student: Float[Tensor, "images dim"], teacher: Float[Tensor, "images dim"]
) -> float:
    """Mean cosine of the angle between the features of the same image."""
    return _mean(functional.cosine(student.double(), teacher.double()))


def norm_ratio(student: Float[Tensor, "images dim"], teacher: Float[Tensor, "images dim"]) -> float:
    """Mean of ‖student‖ / ‖teacher‖ over the images whose teacher feature is not zero."""
    known = teacher.any(1)
    return _mean(norm(student[known].double()) / norm(teacher[known].double()))


def _voc(
    scores: Float[Tensor, " images"], targets: Int[Tensor, " images"], points: Points
) -> Float[Tensor, ""]:
    counted = targets != 0
    hits = _sorted(scores[counted], targets[counted] == 1).cumsum(0)
    ranks = torch.arange(1, len(hits) + 1, dtype=torch.double, device=hits.device)
    return average_precision(
        hits, hits / (ranks + _TINY), max(int((targets == 1).sum()), 1), points
    )


def _envelope(precision: Float[Tensor, " ranks"]) -> Float[Tensor, " ends"]:
    """The best precision at the recall of each rank or a higher one; 0 behind the last rank."""
    behind = precision.new_zeros(1)
    return torch.cat([precision, behind]).flip(0).cummax(0).values.flip(0)


def _sorted(scores: Tensor, present: Bool[Tensor, "images ..."]) -> Bool[Tensor, "images ..."]:
    """Whether the class is present, from the highest score to the lowest."""
    return present.gather(0, scores.argsort(dim=0, descending=True, stable=True))


def _f1(precision: Tensor, recall: Tensor) -> Tensor:
    both = precision + recall
    return torch.where(both == 0, 0, 2 * precision * recall / both)


def _mean(values: Tensor) -> float:
    """Mean over images; 0 if there is none."""
    return float(values.double().sum() / max(len(values), 1))
