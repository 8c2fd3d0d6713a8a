"""What tasks share that look at whole images: the outputs kept, and fidelity to the teacher."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from understudy.batch import Batch
from understudy.features import Features
from understudy.functional import binary_kl_divergence, linear_cka
from understudy.metrics import classification
from understudy.tasks._task import Outputs

COMPARED = ("logits", "penultimate")
"""Features in which a student is held against its teacher."""

Comparison = tuple[str, str, Callable[[Tensor, Tensor], float]]
"""Name of a measure of fidelity, the feature it is of, and what it computes."""

DIRECTION: tuple[Comparison, ...] = (
    ("cosine", "penultimate", classification.cosine_mean),
    ("norm_ratio", "penultimate", classification.norm_ratio),
)

CLASSES: tuple[Comparison, ...] = (
    ("agreement", "logits", classification.agreement),
    ("kl", "logits", classification.kl),
    *DIRECTION,
)


def decisions(
    student: Float[Tensor, "images classes"], teacher: Float[Tensor, "images classes"]
) -> float:
    """Share of labels on which both decide alike whether they are present."""
    return float(((student >= 0) == (teacher >= 0)).double().mean())


def binary_kl(
    student: Float[Tensor, "images classes"], teacher: Float[Tensor, "images classes"]
) -> float:
    """Mean over images and labels of the KL divergence of the two probabilities, in nats."""
    return float(binary_kl_divergence(student.double(), teacher.double()).mean())


LABELS: tuple[Comparison, ...] = (
    ("agreement", "logits", decisions),
    ("kl", "logits", binary_kl),
    *DIRECTION,
)


def kept(features: Features, batch: Batch) -> Outputs:
    """Index, labels, logits and penultimate features of some images."""
    found = {name: features[name] for name in COMPARED if name in features}
    return {"index": batch.index, "labels": batch.labels} | found


def fidelity(
    student: Outputs, teacher: Outputs, comparisons: tuple[Comparison, ...]
) -> dict[str, float | None]:
    """How close the student is to the teacher on the same images; None where it cannot be said.

    `agreement` and `kl` of the logits; `cosine`, `norm_ratio` (only where both have the same
    dimension) and `cka` (linear) of the penultimate features.
    """
    result: dict[str, float | None] = {}
    for name, key, compare in comparisons:
        same = key in student and key in teacher and student[key].shape == teacher[key].shape
        result[name] = compare(student[key], teacher[key]) if same else None
    result["cka"] = linear_cka(student["penultimate"], teacher["penultimate"])
    return result
