"""Sizes of the pictures beside the side of the views: enlarged ones, and long narrow ones."""

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.config.image_size import Size, in_words, of_sides, pixels, sides
from understudy.data import DecodedSource, FileSource, Source
from understudy.data.subset import evenly
from understudy.experiment import networks
from understudy.models.network import Network

SHORT, OF_METHODS, SECONDS = True, False, 0.5

_SAMPLE = 1000
"""Pictures whose size is read."""

_ENLARGED = 1.5
"""Side of the views, in shorter sides of the pictures, from which a warning is given."""

_LONG, _LONG_SHARE = 2.5, 0.1
"""Longer side in shorter ones from which a picture is long, and share of such for a warning."""

_STEP = 32
"""Sides that are proposed are multiples of it, as the strides of most networks ask."""


def check(examined: Examined) -> Iterator[Finding]:
    """Compare the sides of a sample of the training pictures with those of the views."""
    train = examined.images.train
    if examined.task.truth == "objects":
        return  # A detector resizes whole images itself.
    sides = _sides(train)
    shorter, longer = sides.min(1).values.double(), sides.max(1).values.double()
    views = examined.experiment.train.views.size
    median = int(shorter.median())
    least, most = int(shorter.min()), int(shorter.max())
    span = f"{median} pixels" if least == most else f"{least} to {most} pixels (median {median})"
    yield Finding(
        "picture_sizes",
        "note",
        f"The shorter side of the pictures is {span}, the side of the views {in_words(views)}.",
    )
    yield from _enlarged(examined, views, median)
    long = float((longer > _LONG * shorter).double().mean())
    if long > _LONG_SHARE and examined.resolved.data.augment not in ("none", "squash_flip"):
        yield Finding(
            "picture_sizes",
            "warning",
            f"{100 * long:.0f} % of the pictures are more than {_LONG:g} times as long as wide: "
            f"the square that is evaluated shows less than {100 / _LONG:.0f} % of them.",
            fix={"data.augment": "squash_flip"},
        )


def _enlarged(examined: Examined, views: Size, median: int) -> Iterator[Finding]:
    """Warn of views that are larger than the pictures, where no network asks for their size."""
    least = min(sides(views))
    height, width = (
        max(_STEP, round(side / least * median / _STEP) * _STEP) for side in sides(views)
    )
    smaller, times = of_sides(height, width), pixels(views) / (height * width)
    if least < _ENLARGED * median or times <= 1 or _asked(examined, smaller):
        return
    yield Finding(
        "picture_sizes",
        "warning",
        f"Half of the pictures are at most {median} pixels on their shorter side and are enlarged "
        f"to {in_words(views)}: a step takes about {times:.0f} times as long, and shows "
        "nothing more.",
        fix={"data.size": smaller},
    )


def _asked(examined: Examined, smaller: Size) -> bool:
    """Return True if a network has a size of its own, which views of another one do not change."""
    recipe, train, task = examined.resolved, examined.images.train, examined.task
    classes = examined.experiment.distiller.student.num_classes
    built = [
        networks.student(recipe.student, classes, task, view_size=smaller),
        *networks.teachers(recipe, train.classes, task, view_size=smaller).values(),
    ]
    sizes = [network.input.size for network in built if isinstance(network, Network)]
    return any(size is not None and pixels(size) > pixels(smaller) for size in sizes)


def _sides(source: Source) -> Int64[Tensor, "sample 2"]:
    """Return height and width of a sample of the images, from the headers of files if possible."""
    if source.pixels is not None:
        return torch.tensor([source.pixels.shape[2:]])
    index = evenly(len(source), _SAMPLE)
    if len(index) == len(source) or isinstance(source, DecodedSource):
        return source.sides()[index]
    if source.paths:
        paths = [source.paths[i] for i in index.tolist()]
        return FileSource(paths, source.labels[index], source.classes, root=Path()).sides()
    return torch.tensor([source.image(i).shape[1:] for i in index[:: len(index) // 50].tolist()])
