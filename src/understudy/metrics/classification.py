"""Metrics of classification, and of the fidelity of a student's outputs to its teacher's.

Pure functions of tensors. Accuracies and average precisions lie in [0, 1]; metrics of multi-label
classification follow the protocols of VOC 2010 and of LSHFM's code, and are returned per class.
Linear CKA is `understudy.functional.linear_cka`.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy import functional
from understudy.functional import kl_divergence, norm
from understudy.metrics import resampling

_TINY = 1e-8
"""Added to the denominators of precision and recall in LSHFM's code."""

Points = Literal["all", "eleven"]
"""Recalls over which VOC averages precision: all (since 2010), or 0, 0.1, …, 1 (until 2009)."""


def top_k(
    logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"], k: int = 1
) -> float:
    """Compute the share of images whose label is among the `k` highest logits."""
    return _mean((logits.topk(k, dim=1).indices == labels.unsqueeze(1)).any(1))


def per_class_accuracy(
    logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]
) -> list[float | None]:
    """Compute the accuracy of each class; None for a class without images."""
    classes = logits.shape[1]
    total = labels.bincount(minlength=classes).tolist()
    correct = labels[logits.argmax(1) == labels].bincount(minlength=classes).tolist()
    return [c / n if n else None for c, n in zip(correct, total, strict=True)]


def calibration_error(
    logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"], bins: int = 15
) -> float:
    """Compute the expected calibration error, with bins of equal width.

    The mean over images of |accuracy − confidence| of their bin of confidence: Guo et al., "On
    Calibration of Modern Neural Networks", 2017. A bin includes its upper edge.
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    gap = (predicted == labels).double() - confidence
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=logits.device)
    # `bucketize` gives 0 for a confidence of 0, which belongs to the first bin.
    index = (torch.bucketize(confidence, edges) - 1).clamp(0, bins - 1)
    sums = gap.new_zeros(bins).index_add_(0, index, gap)
    return float(sums.abs().sum() / max(len(labels), 1))


def voc_ap(
    scores: Float[Tensor, "images classes"],
    targets: Int[Tensor, "images classes"],
    *,
    points: Points = "all",
) -> Float[Tensor, " classes"]:
    """Compute VOC's average precision of each class; 0 without positives.

    Args:
        scores: Higher means more confident.
        targets: 1 where the class is present, -1 where it is absent, 0 to leave an image out.
        points: Recalls to average over.
    """
    return torch.stack([_voc(s, t, points) for s, t in zip(scores.T, targets.T, strict=True)])


def resampled_voc_ap(
    scores: Float[Tensor, "images classes"], targets: Int[Tensor, "images classes"]
) -> list[float]:
    """Compute VOC's mean average precision, in percent, on each resample of the test images.

    Arguments are those of `voc_ap`; classes without positives are left out.
    """
    counts, by_class = resampling.image_counts(len(scores)), []
    for score, target in zip(scores.T.cpu(), targets.T.cpu(), strict=True):
        order = score.argsort(descending=True, stable=True)
        order = order[target[order] != 0]
        positive = target == 1
        if positive.any():
            by_class.append(
                resampling.average_precision(positive[order], order, positive.long(), counts)
            )
    return resampling.mean_over_classes(by_class) if by_class else []


def average_precision(
    hits: Int[Tensor, " ranks"],
    precision: Float[Tensor, " ranks"],
    positives: int,
    points: Points = "all",
) -> Float[Tensor, ""]:
    """Compute VOC's average precision: the mean over recall of the monotone envelope of precision.

    Args:
        hits: Number of true positives down to each rank.
        precision: Precision at each rank.
        positives: Number of positives; at least 1.
        points: Recalls to average over.
    """
    if points == "eleven":
        return at_recalls(hits, precision, positives, steps=10).mean()
    # Each true positive raises the recall by 1 / positives.
    steps = hits.diff(prepend=hits.new_zeros(1))
    return (steps * _envelope(precision)[:-1]).sum() / positives


def at_recalls(
    hits: Int[Tensor, " ranks"], precision: Float[Tensor, " ranks"], positives: int, *, steps: int
) -> Float[Tensor, " points"]:
    """Compute the envelope of precision at recalls 0, 1/steps, …, 1; 0 if a recall is not reached.

    Arguments are those of `average_precision`.
    """
    # hits / positives ≥ i / steps in whole numbers, so that 3 of 10 reach a recall of 0.3.
    recalls = torch.arange(steps + 1, device=hits.device) * positives
    return _envelope(precision)[torch.searchsorted(steps * hits, recalls)]


def coco_ap(
    scores: Float[Tensor, "images classes"], targets: Int[Tensor, "images classes"]
) -> Float[Tensor, " classes"]:
    """Compute COCO's average precision of each class: mean precision at the ranks of its positives.

    Args:
        scores: Higher means more confident.
        targets: 1 where the class is present, 0 where it is absent.
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
    """Compute precision, recall and F1 of the decisions `score >= threshold`.

    A class that is never predicted has precision 0.

    Args:
        scores: Higher means more confident.
        targets: 1 where the class is present.
        threshold: Lowest score of a positive decision.
        released: As in the released code, where a class without positives makes `CR` and `CF1` NaN.
            If False, `CP`, `CR` and `CF1` are averaged over the classes with positives, and all
            values are finite.
    """
    predicted, present = scores >= threshold, targets == 1
    tp, p, positives = (x.double().sum(0) for x in (predicted & present, predicted, present))
    least = 0 if released else 1
    averaged = positives >= least
    overall = tp.sum() / p.sum().clamp_min(1), tp.sum() / positives.sum().clamp_min(least)
    by_class = tp / p.clamp_min(1), tp / positives
    mean = tuple(x[averaged].sum() / averaged.sum().clamp_min(least) for x in by_class)
    return PrecisionRecall(*(float(x) for pair in (overall, mean) for x in (*pair, _f1(*pair))))


def agreement(
    student: Float[Tensor, "images classes"], teacher: Float[Tensor, "images classes"]
) -> float:
    """Compute the share of images on which both networks predict the same class."""
    return _mean(student.argmax(1) == teacher.argmax(1))


def kl(student: Float[Tensor, "images classes"], teacher: Float[Tensor, "images classes"]) -> float:
    """Compute the mean of KL(teacher ‖ student) of the class probabilities, in nats."""
    return _mean(kl_divergence(student.double(), teacher.double()))


def cosine_mean(
    student: Float[Tensor, "images dim"], teacher: Float[Tensor, "images dim"]
) -> float:
    """Compute the mean cosine between both networks' features of the same image."""
    return _mean(functional.cosine(student.double(), teacher.double()))


def norm_ratio(student: Float[Tensor, "images dim"], teacher: Float[Tensor, "images dim"]) -> float:
    """Compute the mean of ‖student‖ / ‖teacher‖ over images with a non-zero teacher feature."""
    nonzero = teacher.any(1)
    return _mean(norm(student[nonzero].double()) / norm(teacher[nonzero].double()))


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
    """Compute the maximum of precision from each rank on; 0 after the last rank."""
    end = precision.new_zeros(1)
    return torch.cat([precision, end]).flip(0).cummax(0).values.flip(0)


def _sorted(scores: Tensor, present: Bool[Tensor, "images ..."]) -> Bool[Tensor, "images ..."]:
    """Sort `present` by score, highest first."""
    return present.gather(0, scores.argsort(dim=0, descending=True, stable=True))


def _f1(precision: Tensor, recall: Tensor) -> Tensor:
    total = precision + recall
    return torch.where(total == 0, 0, 2 * precision * recall / total)


def _mean(values: Tensor) -> float:
    """Average over images; 0 if there are none."""
    return float(values.double().sum() / max(len(values), 1))
