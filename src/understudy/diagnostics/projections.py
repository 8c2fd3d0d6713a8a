"""What a projector makes of the student's feature: likeness to the teacher without it and with it.

Linear CKA and the mean cosine are those of `functional.py`; maps and tokens are averaged over their
locations first.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from understudy.diagnostics.directions import zeros
from understudy.diagnostics.sample_images import Watch
from understudy.features import Features
from understudy.functional import linear_cka
from understudy.methods import Method
from understudy.metrics.classification import cosine_mean
from understudy.tasks import COMPARED, Outputs

ROWS = 1024
SAMPLE = 2048
"""Images that are shown again for features of which no outputs are kept, at most."""

Pairs = Iterator[tuple[Features, Features]]


def projections(
    methods: Mapping[str, Any],
    student: Outputs,
    teacher: Outputs,
    watch: Watch,
    device: torch.device,
) -> list[dict[str, Any]]:
    """One entry for each projected feature of each method.

    Args:
        methods: Label → method, in evaluation mode.
        student: Outputs of the student on all test images.
        teacher: Outputs of the teacher on the same images.
        watch: Shows images again.
        device: Where the methods are.
    """
    found = []
    for label, module in methods.items():
        method = cast(Method, module)
        if type(method).projected is Method.projected:
            continue
        pairs = (
            _kept(student, teacher, device)
            if set(method.reads) <= set(COMPARED)
            else ((s, t) for s, t, _ in watch.some(SAMPLE))
        )
        for feature, triple in _projected(method, pairs).items():
            found.append({"method": label, "feature": feature} | _likeness(*triple))
    return found


def _kept(student: Outputs, teacher: Outputs, device: torch.device) -> Pairs:
    names = [name for name in COMPARED if name in student and name in teacher]
    for start in range(0, len(student["index"]), ROWS):
        rows = slice(start, start + ROWS)
        s, t = ({n: x[n][rows].to(device) for n in names} for x in (student, teacher))
        yield s, t


def _projected(method: Method, pairs: Pairs) -> dict[str, list[Tensor]]:
    """Of each projected feature: the student's own, the projected one and the teacher's."""
    rows = defaultdict(list)
    for student, teacher in pairs:
        projected = method.projected(student)
        if not projected:
            return {}
        for name, z in projected.items():
            rows[name].append([_pooled(x).cpu() for x in (student[name], z, teacher[name])])
    return {n: [torch.cat(x) for x in zip(*parts, strict=True)] for n, parts in rows.items()}


def _pooled(x: Tensor) -> Tensor:
    """The mean over locations or tokens; a vector as it is."""
    if x.dim() == 4:
        return x.mean((2, 3))
    return x.mean(1) if x.dim() == 3 else x


def _likeness(s: Tensor, z: Tensor, t: Tensor) -> dict[str, Any]:
    """Each measure without the projector and with it; None where dimensions differ."""
    return {
        "cka": [linear_cka(x, t) for x in (s, z)],
        "cosine": [cosine_mean(x, t) if x.shape == t.shape else None for x in (s, z)],
        "zeros": [zeros(x) for x in (s, z)],
    }
