"""What a finished run keeps for its pictures of direction and norm: counts, shares and means.

Of the outputs of both networks on the test images nothing is kept as it is, so that the file stays
small. Where letKD says which template wins where, the few images are kept that this is drawn over.
"""

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from understudy.data.loader import Loader
from understudy.diagnostics.directions import bit_agreement, of_student, of_teacher
from understudy.diagnostics.projections import projections
from understudy.diagnostics.templates import templates
from understudy.diagnostics.watch import Watch
from understudy.distiller import Distiller
from understudy.methods.lshfm import LSHFM
from understudy.models.network import Network
from understudy.tasks import Outputs

HASHES = 4096
"""Hashes that bits are compared of, at most."""


@torch.no_grad()
def measure(
    student: Outputs,
    teacher: Outputs,
    *,
    network: Network,
    distiller: Distiller,
    test: Loader,
    accelerator: Accelerator,
) -> dict[str, Any]:
    """All that the pictures of one run need, for JSON.

    Args:
        student: Outputs of the trained student on all test images.
        teacher: Outputs of its teacher on the same images.
        network: The student; for features that no outputs are kept of.
        distiller: Teacher and methods.
        test: The test images.
        accelerator: Device and precision.
    """
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
