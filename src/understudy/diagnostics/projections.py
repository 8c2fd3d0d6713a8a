"""Similarity of the student's feature to the teacher's, without a method's projector and with it.

Linear CKA and the mean cosine are those of `functional.py`; maps and tokens are averaged over their
locations first.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from understudy.diagnostics.directions import zeros
from understudy.diagnostics.sample_images import FeaturePairs
from understudy.features import Features
from understudy.functional import linear_cka
from understudy.methods import Method
from understudy.metrics.classification import cosine_mean
from understudy.tasks import COMPARED, Outputs

ROWS = 1024
SAMPLE = 2048
"""Maximum number of images in a second pass, for features that are not among the outputs."""

Pairs = Iterator[tuple[Features, Features]]


def projections(
    methods: Mapping[str, Method],
    student: Outputs,
    teacher: Outputs,
    images: FeaturePairs,
) -> list[dict[str, Any]]:
    """Return one entry for each projected feature of each method.

    Args:
        methods: Label → method, in evaluation mode.
        student: Outputs of the student on all test images.
        teacher: Outputs of the teacher on the same images.
        images: Both networks and the images, for a second pass.
    """
    entries = []
    for label, method in methods.items():
        if type(method).projected is Method.projected:
            continue
        pairs = (
            _stored(student, teacher, images.accelerator.device)
            if set(method.reads) <= set(COMPARED)
            else ((s, t) for s, t, _ in images.sample(SAMPLE))
        )
        for feature, triple in _projected(method, pairs).items():
            entries.append({"method": label, "feature": feature} | _similarity(*triple))
    return entries


def _stored(student: Outputs, teacher: Outputs, device: torch.device) -> Pairs:
    names = [name for name in COMPARED if name in student and name in teacher]
    for start in range(0, len(student["index"]), ROWS):
        rows = slice(start, start + ROWS)
        s, t = ({n: x[n][rows].to(device) for n in names} for x in (student, teacher))
        yield s, t


def _projected(method: Method, pairs: Pairs) -> dict[str, list[Tensor]]:
    """Return for each projected feature the student's, its projection, and the teacher's."""
    rows = defaultdict(list)
    for student, teacher in pairs:
        projected = method.projected(student)
        if not projected:
            return {}
        for name, z in projected.items():
            rows[name].append([_pooled(x).cpu() for x in (student[name], z, teacher[name])])
    return {n: [torch.cat(x) for x in zip(*parts, strict=True)] for n, parts in rows.items()}


def _pooled(x: Tensor) -> Tensor:
    """Return the mean over locations or tokens; a vector unchanged."""
    if x.dim() == 4:
        return x.mean((2, 3))
    return x.mean(1) if x.dim() == 3 else x


def _similarity(s: Tensor, z: Tensor, t: Tensor) -> dict[str, Any]:
    """Return each measure without and with the projector; None where it is not defined."""
    return {
        "cka": [linear_cka(x, t) for x in (s, z)],
        "cosine": [cosine_mean(x, t) if x.shape == t.shape else None for x in (s, z)],
        "zeros": [zeros(x) for x in (s, z)],
    }
