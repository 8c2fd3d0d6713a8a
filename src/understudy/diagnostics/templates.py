"""The best-scoring template of letKD at each location of sample images."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from understudy.batch import Batch
from understudy.diagnostics.sample_images import FeaturePairs, spread
from understudy.diagnostics.thumbnails import encoded
from understudy.features import Features
from understudy.methods import Method
from understudy.methods.letkd import SCORES, LetKD

SAMPLE = 64
"""Number of images on which student and teacher are compared."""
DRAWN = 6
"""Number of stored images, over which the templates are drawn."""
PIXELS = 96
"""Maximum length of their longer side."""
UNKNOWN = -1
"""Stands for the teacher's template where there is no target."""


def templates(methods: Mapping[str, Method], images: FeaturePairs) -> dict[str, Any] | None:
    """Return the best templates of student and teacher at each layer; None without letkd."""
    for label, method in methods.items():
        if isinstance(method, LetKD):
            return {"method": label} | _templates(method, images)
    return None


def _templates(method: LetKD, images: FeaturePairs) -> dict[str, Any]:
    pixels, best = [], defaultdict(list)
    for student, teacher, batch in images.sample(SAMPLE):
        pixels += list(batch.images.cpu())
        for layer, ours, theirs in best_templates(method, student, teacher, batch):
            best[layer].append((ours.cpu(), theirs.cpu()))
    drawn = spread(len(pixels), DRAWN)
    layers = {n: [torch.cat(x) for x in zip(*parts, strict=True)] for n, parts in best.items()}
    return {
        "images": [encoded(pixels[i], side=PIXELS, form="PNG") for i in drawn],
        "places": {layer: _layer(drawn, *pair) for layer, pair in layers.items()},
    }


def best_templates(
    method: LetKD, student: Features, teacher: Features, batch: Batch
) -> Iterator[tuple[str, Int[Tensor, "batch h w"], Int[Tensor, "batch h w"]]]:
    """Yield for each layer the student's best template and the teacher's most likely one."""
    targets = method.targets(student, teacher, batch) if method.supervised else ()
    theirs = {}
    for layer, target, known in targets:
        best = target.argmax(1)
        theirs[layer] = best if known is None else best.where(known[:, None, None], UNKNOWN)
    for layer in method.features:
        ours = student[SCORES[layer]].argmax(1)
        yield layer, ours, theirs.get(layer, torch.full_like(ours, UNKNOWN))


def _layer(drawn: Tensor, ours: Tensor, theirs: Tensor) -> dict[str, Any]:
    known = theirs != UNKNOWN
    return {
        "student": ours[drawn].tolist(),
        "teacher": theirs[drawn].tolist() if known.any() else None,
        "agreement": float((ours == theirs)[known].double().mean()) if known.any() else None,
    }
