"""Statistics of the norms and directions of penultimate features.

s, t ∈ R^{n×D} are the features of student and teacher for n test images. Between-class similarity
is the mean cosine between the mean features of two classes (Chen et al., NeurIPS 2022, arXiv
2210.15274); the bits of a random plane through zero agree with probability 1 − θ/π (Charikar, STOC
2002), where θ is the angle between s and t.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from understudy.diagnostics.sample_images import spread
from understudy.functional import cosine, norm, unit

BINS = 64
SAMPLE = 2048
"""Maximum number of images whose bits are compared."""
DEGREES = 2
"""Width of the bins of angles."""


def of_student(
    student: Float[Tensor, "images dim_s"],
    teacher: Float[Tensor, "images dim_t"],
    labels: Int[Tensor, "images ..."],
) -> dict[str, Any]:
    """Return the statistics of a student; cosines to the teacher only for equal dimensions."""
    comparable = student.shape == teacher.shape
    means = labelled_means(teacher, labels)
    return _of_network(student, labels) | {
        "to_teacher": histogram(cosine(student.double(), teacher.double())) if comparable else None,
        "to_class_mean": to_class_mean(student, means, labels) if comparable else None,
    }


def of_teacher(
    teacher: Float[Tensor, "images dim"], labels: Int[Tensor, "images ..."]
) -> dict[str, Any]:
    """Return the statistics of a teacher."""
    means = labelled_means(teacher, labels)
    return _of_network(teacher, labels) | {"to_class_mean": to_class_mean(teacher, means, labels)}


def _of_network(features: Tensor, labels: Tensor) -> dict[str, Any]:
    return {
        "norm": histogram(norm(features.double())),
        "zeros": zeros(features),
        "between_classes": between_classes(labelled_means(features, labels)),
    }


def histogram(values: Float[Tensor, " images"]) -> dict[str, Any] | None:
    """Return counts in equal bins over the range of the finite values; None if there are none."""
    values = values[values.isfinite()].double()
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    if high == low:
        high += max(1e-3 * abs(low), 1e-6)
    counts = values.histc(BINS, low, high).long().tolist()
    return {"low": low, "high": high, "mean": float(values.mean()), "counts": counts}


def present(
    labels: Int[Tensor, "images ..."],
) -> tuple[Int[Tensor, " labels"], Int[Tensor, " labels"]]:
    """Return image and class of every positive label: one per labelled image, or several."""
    if labels.dim() == 1:
        (images,) = (labels >= 0).nonzero(as_tuple=True)
        return images, labels[images]
    images, classes = (labels == 1).nonzero(as_tuple=True)
    return images, classes


def labelled_means(
    features: Float[Tensor, "images dim"], labels: Int[Tensor, "images ..."]
) -> Float[Tensor, "classes dim"]:
    """Return the mean feature of each class; zero for a class without images."""
    images, which = present(labels)
    classes = int(which.max()) + 1 if len(which) else 0
    sums = features.new_zeros(classes, features.shape[1], dtype=torch.float64)
    sums.index_add_(0, which, features[images].double())
    return sums / which.bincount(minlength=classes).clamp_min(1).unsqueeze(1)


def to_class_mean(
    features: Float[Tensor, "images dim"],
    means: Float[Tensor, "classes dim"],
    labels: Int[Tensor, "images ..."],
) -> dict[str, Any] | None:
    """Return the histogram of the cosine of each labelled image to the means of its classes."""
    images, which = present(labels)
    return histogram(cosine(features[images].double(), means[which]))


def between_classes(means: Float[Tensor, "classes dim"]) -> float | None:
    """Return the mean cosine over pairs of different classes; None with fewer than two classes."""
    rows = unit(means[means.any(1)])
    if len(rows) < 2:
        return None
    cosines = rows @ rows.T
    return float((cosines.sum() - cosines.trace()) / (len(rows) * (len(rows) - 1)))


def zeros(features: Tensor) -> float:
    """Return the share of values that are exactly zero."""
    return float((features == 0).double().mean())


def bit_agreement(
    student: Float[Tensor, "images dim"],
    teacher: Float[Tensor, "images dim"],
    weight: Float[Tensor, "hashes dim"],
    bias: Float[Tensor, " hashes"],
    method: str | None,
) -> dict[str, Any] | None:
    """Return the share of hash bits that are equal for both networks, by the features' angle.

    Args:
        student: Features; rows that are zero have no angle and are left out.
        teacher: Features of the same images.
        weight: Normal vectors of the hash planes.
        bias: Offsets of the hash planes.
        method: Label of the method whose hashes these are; None for random hashes.
    """
    rows = spread(len(student), SAMPLE)
    s, t = student[rows], teacher[rows]
    s, t = (x[s.any(1) & t.any(1)] for x in (s, t))
    if not len(s):
        return None
    angles = cosine(s.double(), t.double()).clamp(-1, 1).acos().rad2deg()
    same = (F.linear(s, weight, bias) > 0) == (F.linear(t, weight, bias) > 0)
    agreement = same.double().mean(1)
    bins = (angles / DEGREES).long()
    counts = bins.bincount()
    filled = counts > 0
    return {
        "method": method,
        "hashes": len(bias),
        "images": counts[filled].tolist(),
        "angle": (bins.bincount(angles)[filled] / counts[filled]).tolist(),
        "agreement": (bins.bincount(agreement)[filled] / counts[filled]).tolist(),
    }
