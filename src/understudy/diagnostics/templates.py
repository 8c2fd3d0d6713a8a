"""Which of letKD's templates wins where, on some test images."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from understudy.batch import Batch
from understudy.diagnostics.sample_images import Watch, spread
from understudy.diagnostics.thumbnails import encoded
from understudy.features import Features
from understudy.methods.letkd import SCORES, LetKD

SAMPLE = 64
"""Images over which student and teacher are compared."""
DRAWN = 6
"""Images that are kept, to draw the templates over."""
PIXELS = 96
"""Longer side of these, at most."""
UNKNOWN = -1
"""In place of a template where the teacher says nothing."""


def templates(methods: Mapping[str, Any], watch: Watch) -> dict[str, Any] | None:
    """The winning templates of student and teacher at each place; None without letkd."""
    for label, method in methods.items():
        if isinstance(method, LetKD):
            return {"method": label} | _templates(method, watch)
    return None


def _templates(method: LetKD, watch: Watch) -> dict[str, Any]:
    images, won = [], defaultdict(list)
    for student, teacher, batch in watch.some(SAMPLE):
        images += list(batch.images.cpu())
        for place, ours, theirs in winners(method, student, teacher, batch):
            won[place].append((ours.cpu(), theirs.cpu()))
    drawn = spread(len(images), DRAWN)
    places = {n: [torch.cat(x) for x in zip(*parts, strict=True)] for n, parts in won.items()}
    return {
        "images": [encoded(images[i], side=PIXELS, form="PNG") for i in drawn],
        "places": {place: _place(drawn, *pair) for place, pair in places.items()},
    }


def winners(
    method: LetKD, student: Features, teacher: Features, batch: Batch
) -> Iterator[tuple[str, Int[Tensor, "batch h w"], Int[Tensor, "batch h w"]]]:
    """Of each place: the student's best template and the teacher's likeliest, at every location."""
    targets = method.targets(student, teacher, batch) if method.supervised else ()
    theirs = {}
    for place, target, known in targets:
        best = target.argmax(1)
        theirs[place] = best if known is None else best.where(known[:, None, None], UNKNOWN)
    for place in method.features:
        ours = student[SCORES[place]].argmax(1)
        yield place, ours, theirs.get(place, torch.full_like(ours, UNKNOWN))


def _place(drawn: Tensor, ours: Tensor, theirs: Tensor) -> dict[str, Any]:
    known = theirs != UNKNOWN
    return {
        "student": ours[drawn].tolist(),
        "teacher": theirs[drawn].tolist() if known.any() else None,
        "agreement": float((ours == theirs)[known].double().mean()) if known.any() else None,
    }
