"""What a finished run keeps for its pictures: counts, shares, means, and a few images.

Of the features of both networks on the test images nothing is kept as it is, so that the file stays
small. Images are kept where something is drawn over them: objects, classes, letKD's templates.
"""

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from understudy.data.loader import Loader
from understudy.diagnostics import detection, multilabel
from understudy.diagnostics.directions import bit_agreement, of_student, of_teacher
from understudy.diagnostics.projections import projections
from understudy.diagnostics.sample_images import Watch
from understudy.diagnostics.templates import templates
from understudy.distillation.distiller import Distiller
from understudy.methods.lshfm import LSHFM
from understudy.models.base import Wrapped
from understudy.models.network import Network
from understudy.tasks import Outputs, Task

HASHES = 4096
"""Hashes that bits are compared of, at most."""


@torch.no_grad()
def measure(
    student: Outputs,
    teacher: Outputs | None,
    *,
    task: Task,
    network: Wrapped,
    distiller: Distiller,
    test: Loader,
    accelerator: Accelerator,
) -> dict[str, Any]:
    """All that the pictures of one run need, for JSON; empty if there is nothing to draw.

    Args:
        student: Outputs of the trained student on all test images.
        teacher: Outputs of its teacher on the same images, if it has one.
        task: Says what the outputs are.
        network: The student; for features that no outputs are kept of.
        distiller: Teacher and methods.
        test: The test images.
        accelerator: Device and precision.
    """
    there = distiller.teacher
    alike = there is not None and there.network.num_classes == network.num_classes
    found = _answers(student, teacher if alike else None, task, test)
    if teacher is not None and isinstance(network, Network):
        found |= _directions(student, teacher, network, distiller, test, accelerator)
    return found


def _answers(student: Outputs, teacher: Outputs | None, task: Task, test: Loader) -> dict[str, Any]:
    """What both networks say of several objects or classes in an image."""
    if task.truth == "class" or (task.truth == "classes" and "logits" not in student):
        return {}
    kind = detection if task.truth == "objects" else multilabel
    return {
        "scenes": kind.scenes(student, teacher, test),
        "precision": kind.precision(student, teacher),
    }


def _directions(
    student: Outputs,
    teacher: Outputs,
    network: Network,
    distiller: Distiller,
    test: Loader,
    accelerator: Accelerator,
) -> dict[str, Any]:
    """Of the features of whole images, as student and teacher see them."""
    assert distiller.teacher is not None
    s, t, labels = student["penultimate"], teacher["penultimate"], student["labels"]
    methods = dict(distiller.trainable.methods.items())
    watch = Watch(network, distiller.teacher, test, accelerator)
    training = distiller.trainable.training
    distiller.trainable.eval()
    network.eval()
    found = {
        "images": len(s),
        "student": of_student(s, t, labels),
        "teacher": of_teacher(t, labels),
        "bits": bit_agreement(s, t, *_hashes(methods, t)) if s.shape == t.shape else None,
        "projectors": projections(methods, student, teacher, watch, accelerator.device),
        "templates": templates(methods, watch),
    }
    distiller.trainable.train(training)
    return found


def _hashes(methods: Mapping[str, Any], teacher: Tensor) -> tuple[Tensor, Tensor, str | None]:
    """Directions, offsets and label of the method they are of; drawn where no method has any."""
    for label, method in methods.items():
        if isinstance(method, LSHFM) and len(method.hash_weight):
            return method.hash_weight[:HASHES].cpu(), method.hash_bias[:HASHES].cpu(), label
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(HASHES, teacher.shape[1], generator=generator)
    return drawn, torch.zeros(HASHES), None
