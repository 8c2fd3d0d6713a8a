"""How good a student is, and how close to its teacher, over a set of images."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from understudy import metrics
from understudy.batch import Batch
from understudy.features import Features
from understudy.functional import linear_cka
from understudy.models.network import Network
from understudy.tasks import Task

Outputs = dict[str, Tensor]
"""`logits` and `penultimate` of every image, with `index` and `labels`, on the CPU."""

COMPARED = ("logits", "penultimate")
"""Features in which a student is held against its teacher."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of the task, its headline metric for each class, and fidelity to the teacher.

    Fidelity: `agreement` (share of images with the teacher's predicted class), `kl` (of the
    student's distribution from the teacher's), `cosine` and `norm_ratio` (penultimate features;
    only where both have the same dimension), `cka` (linear, of penultimate features).
    """

    metrics: dict[str, float]
    per_class: list[float | None]
    fidelity: dict[str, float | None] | None


@torch.no_grad()
def collect(
    network: Network,
    batches: Iterable[Batch],
    accelerator: Accelerator,
    *,
    replay: Callable[[Batch], Features] | None = None,
) -> Outputs:
    """Outputs of a network in evaluation mode, from all processes, in the order of the index.

    Args:
        network: Student or teacher.
        batches: This process's share of the images.
        accelerator: Devices, processes and precision.
        replay: Gives the network's features in its stead.
    """
    training = network.training
    network.eval()
    give = replay or (lambda batch: network.features(batch.images))
    parts = [_outputs(give, batch, accelerator) for batch in batches]
    network.train(training)
    parts = gather_object(parts) if accelerator.num_processes > 1 else parts
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    order = joined["index"].argsort()
    return {name: x[order] for name, x in joined.items()}


def _outputs(give: Callable[[Batch], Features], batch: Batch, accelerator: Accelerator) -> Outputs:
    batch = batch.to(accelerator.device, torch.contiguous_format)
    with accelerator.autocast():
        features = give(batch)
    kept: Outputs = {"index": batch.index, "labels": batch.labels}
    kept |= {name: features[name] for name in COMPARED if name in features}
    return {name: x.float().cpu() if x.is_floating_point() else x.cpu() for name, x in kept.items()}


def evaluate(student: Outputs, teacher: Outputs | None, task: Task) -> Evaluation:
    """Compare a student's outputs with the labels and with its teacher's outputs."""
    labelled = student["labels"] >= 0
    values, per_class = {}, []
    if "logits" in student and labelled.any():
        logits, labels = student["logits"][labelled], student["labels"][labelled]
        values, per_class = task.metrics(logits, labels), task.per_class(logits, labels)
    return Evaluation(values, per_class, fidelity(student, teacher) if teacher else None)


def fidelity(student: Outputs, teacher: Outputs) -> dict[str, float | None]:
    """How close the student is to the teacher on the same images; None where it cannot be said."""
    result: dict[str, float | None] = {}
    for name, key, compare in _FIDELITY:
        same = key in student and key in teacher and student[key].shape == teacher[key].shape
        result[name] = compare(student[key], teacher[key]) if same else None
    result["cka"] = linear_cka(student["penultimate"], teacher["penultimate"])
    return result


_FIDELITY: tuple[tuple[str, str, Callable[[Tensor, Tensor], float]], ...] = (
    ("agreement", "logits", metrics.agreement),
    ("kl", "logits", metrics.kl),
    ("cosine", "penultimate", metrics.cosine_mean),
    ("norm_ratio", "penultimate", metrics.norm_ratio),
)
