"""Images of each class in each split: classes without any, with few, and how uneven they are."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from understudy.batch import UNLABELLED
from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.data import Source
from understudy.data.subset import Subset
from understudy.experiment.images import Images
from understudy.words import agreeing

SHORT, OF_METHODS, SECONDS = True, False, 0.1

_FEW = 10
"""Training images of a class below which a network hardly learns it."""

_UNEVEN = 10
"""Images of the most frequent class for one of the rarest, from which a warning is given."""

_NAMED = 3
"""Classes that a message names; of further ones it says how many there are."""


def check(examined: Examined) -> Iterator[Finding]:
    """Count the images of each class, in every split."""
    if not examined.task.uses_labels:
        return
    images = examined.images
    counts = class_counts(images.train)
    if not len(counts):
        return
    yield Finding("classes", "note", _counts_sentence(images, counts))
    if images.train.labels.ndim == 1 and int((counts > 0).sum()) == 1:
        only = _name(images.train, int(counts.argmax()))
        yield Finding(
            "classes",
            "error",
            f"All {int(counts.max()):,} labelled training images belong to one class, {only!r}: "
            "there is nothing to tell apart.",
            advice="Sort the images into one folder for each class, or train with --task none.",
        )
        return
    yield from _rare(examined, counts)
    yield from _not_measured(images, counts)
    if images.train.labels.ndim == 1:
        yield from _uneven(examined, counts)


def class_counts(source: Source) -> Int64[Tensor, " classes"]:
    """Return the number of images in which each class is known to be present."""
    if source.labels.ndim == 2:
        return (source.labels == 1).sum(0)
    known = source.labels[source.labels != UNLABELLED]
    return torch.bincount(known, minlength=len(source.classes))


def _counts_sentence(images: Images, counts: Tensor) -> str:
    splits = ", ".join(
        f"{split['images']:,} {name} ({split['origin']})"
        for name, split in images.counts().items()
        if split
    )
    fewest, most = int(counts.argmin()), int(counts.argmax())
    each = (
        f"{int(counts[most]):,} of every class"
        if counts[fewest] == counts[most]
        else f"{int(counts[fewest]):,} ({_name(images.train, fewest)}) to {int(counts[most]):,} "
        f"({_name(images.train, most)}) of a class"
    )
    return f"Images: {splits}. Labelled for training: {each}, {len(counts)} classes."


def _rare(examined: Examined, counts: Tensor) -> Iterator[Finding]:
    """Warn of classes with no or few training images."""
    train = examined.images.train
    empty, few = counts == 0, (counts > 0) & (counts < _FEW)
    for classes, how_many in ((empty, "no"), (few, f"fewer than {_FEW}")):
        if not classes.any():
            continue
        numbers = classes.nonzero().flatten().tolist()
        words = f"{len(numbers)} of {len(counts)} classes"
        if len(numbers) == len(counts):
            words = f"All {len(counts)} classes"
        yield Finding(
            "classes",
            "warning",
            f"{words} {agreeing(len(numbers), 'has', 'have')} {how_many} training images with a "
            f"label: {_listed(train, numbers, counts)}.",
            **_more(examined, counts),
        )


def _more(examined: Examined, counts: Tensor) -> dict[str, Any]:
    """Return the fix, where the recipe itself leaves images or labels out; else advice."""
    spec, whole = examined.recipe.data, examined.images.train
    while isinstance(whole, Subset):
        whole = whole.source
    available = class_counts(whole)
    for key in ("labels", "images"):
        if getattr(spec, key) is None or not (available > counts).any():
            continue
        enough = _FEW * len(counts)
        fits = int(available.min()) >= _FEW and enough < len(whole)
        return {"fix": {f"data.{key}": enough if fits else None}}
    return {"advice": "Add images of these classes, or remove them from the data."}


def _not_measured(images: Images, counts: Tensor) -> Iterator[Finding]:
    """Warn of classes that are trained, and absent from the images that measure the student."""
    measured = class_counts(images.test)
    if len(measured) != len(counts):
        return
    absent = ((measured == 0) & (counts > 0)).nonzero().flatten().tolist()
    if absent:
        yield Finding(
            "classes",
            "warning",
            f"{len(absent)} of {len(counts)} classes {agreeing(len(absent), 'is', 'are')} not in "
            f"the {len(images.test):,} {images.measured} images: "
            f"{_listed(images.train, absent, counts)}. What the student "
            "knows of them is not measured.",
            advice="Move some of their images there.",
        )


def _uneven(examined: Examined, counts: Tensor) -> Iterator[Finding]:
    recipe, train = examined.recipe, examined.images.train
    if recipe.data.balance or recipe.training.class_weights != "none":
        return
    present = counts[counts > 0]
    most, fewest = int(present.max()), int(present.min())
    if most < _UNEVEN * fewest:
        return
    rare = ((counts > 0) & (counts * _UNEVEN <= most)).nonzero().flatten().tolist()
    yield Finding(
        "classes",
        "warning",
        f"The most frequent class, {_name(train, int(counts.argmax()))!r}, has "
        f"{most / fewest:.0f} times as many training images as the rarest ({most:,} and "
        f"{fewest:,}); {len(rare)} of {len(counts)} classes {agreeing(len(rare), 'has', 'have')} "
        "at most a tenth: "
        f"{_listed(train, rare, counts)}. Accuracy over all images hardly shows the rare ones.",
        # Batches that are drawn by their labels have a balance of their own.
        fix={"training.class_weights": "balanced"}
        if recipe.data.labelled_share is not None
        else {"data.balance": 0.5},
    )


def _listed(source: Source, numbers: Sequence[int], counts: Tensor) -> str:
    named = [f"{_name(source, c)} ({int(counts[c]):,})" for c in numbers[:_NAMED]]
    more = len(numbers) - _NAMED
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")


def _name(source: Source, c: int) -> str:
    return source.classes[c] if c < len(source.classes) else f"class {c}"
