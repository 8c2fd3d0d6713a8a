"""Outputs and fidelity of the tasks on whole images (all but detection)."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from understudy.batch import Batch
from understudy.features import Features
from understudy.functional import binary_kl_divergence, linear_cka
from understudy.metrics import classification
from understudy.tasks._task import Outputs

COMPARED = ("logits", "penultimate")
"""Features in which fidelity compares a student with its teacher."""

Comparison = tuple[str, str, Callable[[Tensor, Tensor], float]]
"""Name of a measure of fidelity, the feature it compares, and its function."""

PENULTIMATE: tuple[Comparison, ...] = (
    ("cosine", "penultimate", classification.cosine_mean),
    ("norm_ratio", "penultimate", classification.norm_ratio),
)

SINGLE_LABEL: tuple[Comparison, ...] = (
    ("agreement", "logits", classification.agreement),
    ("kl", "logits", classification.kl),
    *PENULTIMATE,
)


def decision_agreement(
    student: Float[Tensor, "images classes"], teacher: Float[Tensor, "images classes"]
) -> float:
    """Compute the share of (image, class) pairs for which both networks decide alike."""
    return float(((student >= 0) == (teacher >= 0)).double().mean())


def binary_kl(
    student: Float[Tensor, "images classes"], teacher: Float[Tensor, "images classes"]
) -> float:
    """Compute the mean of KL(teacher ‖ student) over images and classes, in nats.

    Each class of an image is a distribution over present and absent.
    """
    return float(binary_kl_divergence(student.double(), teacher.double()).mean())


MULTI_LABEL: tuple[Comparison, ...] = (
    ("agreement", "logits", decision_agreement),
    ("kl", "logits", binary_kl),
    *PENULTIMATE,
)


def collect(features: Features, batch: Batch) -> Outputs:
    """Select index, labels, logits and penultimate features of a batch."""
    compared = {name: features[name] for name in COMPARED if name in features}
    return {"index": batch.index, "labels": batch.labels} | compared


def fidelity(
    student: Outputs, teacher: Outputs, comparisons: tuple[Comparison, ...]
) -> dict[str, float | None]:
    """Compute the fidelity of a student to its teacher on the same images.

    `agreement` and `kl` compare logits; `cosine`, `norm_ratio` and `cka` (linear) compare
    penultimate features. All but `cka` need equal shapes, and are None otherwise; `cka` needs
    `LEAST_FOR_CKA` images.
    """
    result: dict[str, float | None] = {}
    for name, key, compare in comparisons:
        same = key in student and key in teacher and student[key].shape == teacher[key].shape
        result[name] = compare(student[key], teacher[key]) if same else None
    result["cka"] = linear_cka(student["penultimate"], teacher["penultimate"])
    return result
