"""Data that a finished run stores for the charts of its report: histograms, means, a few images.

Features are stored as statistics only, so that the file stays small. Images are stored where
something is drawn over them: objects, classes, letKD's templates.
"""

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from understudy.data.loader import Loader
from understudy.diagnostics import classification, detection, multilabel
from understudy.diagnostics.directions import bit_agreement, of_student, of_teacher
from understudy.diagnostics.projections import projections
from understudy.diagnostics.sample_images import FeaturePairs
from understudy.diagnostics.templates import templates
from understudy.distillation.distiller import Distiller
from understudy.methods import Method
from understudy.methods.lshfm import LSHFM
from understudy.models.base import Wrapped
from understudy.models.network import Network
from understudy.tasks import Outputs, Task

HASHES = 4096
"""Maximum number of hashes whose bits are compared."""


@torch.no_grad()
def measure(
    student: Outputs,
    teachers: Mapping[str, Outputs],
    *,
    task: Task,
    network: Wrapped,
    distiller: Distiller,
    test: Loader,
    accelerator: Accelerator,
) -> dict[str, Any]:
    """Return the content of diagnostics.json; empty if there is nothing to draw.

    Args:
        student: Outputs of the trained student on all test images.
        teachers: Outputs of the teachers on the same images, by name. Of several, the statistics
            of features beside each are kept under `teachers`; predictions are the student's alone.
        task: The task that produced the outputs.
        network: The student, for features that are not among the outputs.
        distiller: Teachers and methods.
        test: The test images.
        accelerator: Device and precision.
    """
    every = distiller.distillations
    only = every[0] if len(every) == 1 else None
    same_classes = only is not None and network.same_classes(only.teacher.network)
    teacher = teachers.get(only.name) if only and same_classes else None
    content = _predictions(student, teacher, task, test)
    if not (teachers and isinstance(network, Network)):
        return content
    training = distiller.trainable.training
    distiller.trainable.eval()
    network.eval()
    beside = {
        each.name: _features(
            student,
            teachers[each.name],
            each.methods,
            FeaturePairs(network, each.teacher, test, accelerator),
        )
        for each in every
        if each.name in teachers
    }
    distiller.trainable.train(training)
    if len(every) > 1:
        return content | {"teachers": beside}
    return content | next(iter(beside.values()), {})


def _predictions(
    student: Outputs, teacher: Outputs | None, task: Task, test: Loader
) -> dict[str, Any]:
    """Return confused classes, or sample images and precision over recall, as the task has them."""
    if task.truth == "class":
        table = classification.confusion(student) if task.uses_labels else []
        return {"confusion": table} if table else {}
    if task.truth == "classes" and "logits" not in student:
        return {}
    kind = detection if task.truth == "objects" else multilabel
    return {
        "scenes": kind.scenes(student, teacher, test),
        "precision": kind.precision(student, teacher),
    }


def _features(
    student: Outputs, teacher: Outputs, methods: Mapping[str, Method], pairs: FeaturePairs
) -> dict[str, Any]:
    """Return the statistics of both networks' features of whole images, in evaluation mode."""
    s, t, labels = student["penultimate"], teacher["penultimate"], student["labels"]
    return {
        "images": len(s),
        "student": of_student(s, t, labels),
        "teacher": of_teacher(t, labels),
        "bits": bit_agreement(s, t, *_hashes(methods, t)) if s.shape == t.shape else None,
        "projectors": projections(methods, student, teacher, pairs),
        "templates": templates(methods, pairs),
    }


def _hashes(methods: Mapping[str, Method], teacher: Tensor) -> tuple[Tensor, Tensor, str | None]:
    """Return weights, biases and the label of the method with hashes; random ones without it."""
    for label, method in methods.items():
        if isinstance(method, LSHFM) and len(method.hash_weight):
            return method.hash_weight[:HASHES].cpu(), method.hash_bias[:HASHES].cpu(), label
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(HASHES, teacher.shape[1], generator=generator)
    return weight, torch.zeros(HASHES), None
