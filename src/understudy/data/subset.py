"""Subsets of a source, drawn by a seed: fewer images, fewer labels, a validation split."""

from functools import cached_property
from itertools import product
from typing import Any, final

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from understudy.batch import UNLABELLED
from understudy.data._lazy import picked
from understudy.data._random import permutation
from understudy.data.source import ChooseCrop, Source, short_digest
from understudy.errors import DataError

# Hashed in the place of an epoch, which is never negative: no order of an epoch shares a stream.
_IMAGES, _LABELS, _VALIDATION = -1, -2, -3


@final
class Subset(Source):
    """Some images of a source, in the given order, with labels that may be hidden."""

    def __init__(
        self, source: Source, index: Int64[Tensor, " kept"], labels: Int64[Tensor, "kept ..."]
    ) -> None:
        """Select images of a source.

        Args:
            source: Source of the images.
            index: Number of each selected image in the source.
            labels: Labels of the selected images, -1 (`UNLABELLED`) where hidden.
        """
        self.source, self.index, self.labels = source, index, labels
        self._images = source.within(index)
        self.classes, self.size, self.skipped = source.classes, source.size, source.skipped
        self.pixels = None if source.pixels is None else source.pixels[index]
        self.paths, self.top = picked(source.paths, index), source.top
        self.contents = picked(source.contents, index)
        ascending = bool((index[1:] >= index[:-1]).all())
        if source.shards is not None and ascending:
            self.shards = torch.searchsorted(index, source.shards)

    def image(self, i: int) -> UInt8[Tensor, "3 height width"]:
        """Return image `i` of the subset."""
        return self._images.image(int(self.index[i]))

    def crop(self, i: int, choose: ChooseCrop) -> UInt8[Tensor, "3 crop_height crop_width"]:
        """Return a crop of image `i` of the subset."""
        return self._images.crop(int(self.index[i]), choose)

    def target(self, i: int) -> Any:
        """Return the target of image `i` of the subset."""
        return self.source.target(int(self.index[i]))

    def sides(self) -> Int64[Tensor, "kept 2"]:
        """Return height and width of every image of the subset."""
        return self._images.sides()[self.index]

    def is_replaced(self, i: int) -> bool:
        """Return True if another image stands in for image `i` of the subset."""
        return self._images.is_replaced(int(self.index[i]))

    def replaced(self) -> tuple[str, ...]:
        """Return the faulty images of the source, whether they are in the subset or not."""
        return self.source.replaced()

    @cached_property
    def images_digest(self) -> str:
        """Sixteen hex digits of the source's digest and the numbers of the selected images."""
        return short_digest(self.source.images_digest, self.index)

    @property
    def targets_digest(self) -> str:
        """The digest of the source's targets, of all its images."""
        return self.source.targets_digest


def evenly(total: int, count: int) -> Int64[Tensor, " drawn"]:
    """Return the numbers of images at equal distances: those of a folder lie class by class.

    Args:
        total: How many images there are.
        count: How many to draw, at most.
    """
    count = min(count, total)
    return torch.arange(count) * total // max(count, 1)


def class_balanced(
    source: Source, *, images: int | None = None, labels: int | None = None, seed: int
) -> Source:
    """Return a subset with an equal number of images, or of labels, from every class.

    A remainder goes to the first classes. With the same seed, a smaller subset is contained in a
    larger one. Unlabelled images count as one more class when `images` are selected. Where an image
    has several classes, the selection ignores classes.

    Args:
        source: Images to select from.
        images: Number of images to keep; default: all.
        labels: Number of images that keep their labels, the others become unlabelled; default: all.
        seed: Seed of the selection.

    Raises:
        DataError: More images are requested than a class has, or than there are.
    """
    select = _ignoring_classes if source.labels.ndim == 2 else _of_every_class
    if images is not None:
        kept = select(source, images, seed, _IMAGES)
        source = Subset(source, kept.nonzero().flatten(), source.labels[kept])
    if labels is not None:
        visible = select(source, labels, seed, _LABELS)
        partly_hidden = source.labels.clone()
        partly_hidden[~visible] = UNLABELLED
        source = Subset(source, torch.arange(len(source)), partly_hidden)
    return source


def split(source: Source, validation: float, *, seed: int) -> tuple[Subset, Subset]:
    """Split a source into training and validation part, stratified by class.

    Where an image has several classes, the share is met for each class as far as possible, and
    every class with at least two images is in both parts if possible.

    Args:
        source: Images to split.
        validation: Share of every class that goes to validation.
        seed: Seed of the split.

    Raises:
        DataError: The share is not between 0 and 1, or leaves one part empty.
    """
    stratify = _stratified_by_classes if source.labels.ndim == 2 else _stratified_by_class
    selected = stratify(source, validation, seed)
    if not 0 < validation < 1 or not 0 < int(selected.sum()) < len(source):
        raise DataError(
            f"A validation share of {validation} of {len(source)} images leaves one part empty; "
            "choose a data.validation between 0 and 1 for which every class is large enough."
        )
    train, held_out = (
        Subset(source, part.nonzero().flatten(), source.labels[part])
        for part in (~selected, selected)
    )
    return train, held_out


def _stratified_by_class(source: Source, share: float, seed: int) -> Bool[Tensor, " images"]:
    """Return True for the validation images; unlabelled images are one more class."""
    selected = torch.zeros(len(source), dtype=torch.bool)
    for label, members in _members(source, torch.unique(source.labels)).items():
        count = round(share * len(members))
        selected[members[permutation(len(members), seed, _VALIDATION, label)[:count]]] = True
    return selected


def _stratified_by_classes(source: Source, share: float, seed: int) -> Bool[Tensor, " images"]:
    """Return True for the validation images, where an image has several classes.

    Classes are taken rarest first, or more frequent classes would decide about the few images of a
    rare one; images without a class come last.
    """
    selected = torch.zeros(len(source), dtype=torch.bool)
    undecided = torch.ones(len(source), dtype=torch.bool)
    present = source.labels == 1
    for label in present.sum(0).argsort(stable=True).tolist():
        order = permutation(len(source), seed, _VALIDATION, label)
        _decide(selected, undecided, present[:, label], share, order)
    order = permutation(len(source), seed, _VALIDATION, -1)
    _decide(selected, undecided, undecided.clone(), share, order)
    return _with_missing_classes(selected, present) if 0 < share < 1 else selected


def _decide(
    selected: Bool[Tensor, " images"],
    undecided: Bool[Tensor, " images"],
    members: Bool[Tensor, " images"],
    share: float,
    order: Int64[Tensor, " images"],
) -> None:
    """Decide all members of a class, in place; select until their share is reached."""
    missing = round(share * int(members.sum())) - int((selected & members).sum())
    candidates = order[(undecided & members)[order]]
    selected[candidates[: max(missing, 0)]] = True
    undecided[members] = False


def _with_missing_classes(
    selected: Bool[Tensor, " images"], present: Bool[Tensor, "images classes"]
) -> Bool[Tensor, " images"]:
    """Move one image for each class that one part lacks, if no class of the other part is lost."""
    for label, validation in product(range(present.shape[1]), (True, False)):
        part, members = selected == validation, present[:, label]
        if (part & members).any():
            continue
        counts = present[~part].sum(0)
        movable = members & (~present | (counts > 1)).all(1)
        selected[movable.nonzero()[:1]] = validation
    return selected


def _ignoring_classes(source: Source, total: int, seed: int, use: int) -> Bool[Tensor, " images"]:
    """Return True for `total` random images; when selecting labels, only for labelled images."""
    eligible = source.labelled if use == _LABELS else torch.ones(len(source), dtype=torch.bool)
    if total > int(eligible.sum()):
        raise DataError(
            f"{total} images are requested, but there are only {int(eligible.sum())}; request "
            "fewer."
        )
    order = permutation(len(source), seed, use)
    selected = torch.zeros_like(eligible)
    selected[order[eligible[order]][:total]] = True
    return selected


def _of_every_class(source: Source, total: int, seed: int, use: int) -> Bool[Tensor, " images"]:
    """Return True for `total` images, evenly from all classes; unlabelled ones only for images."""
    labels = source.labels if use == _IMAGES else source.labels[source.labelled]
    return _balanced(source, torch.unique(labels), total, seed, use)


def _balanced(
    source: Source, classes: Int64[Tensor, " classes"], total: int, seed: int, use: int
) -> Bool[Tensor, " images"]:
    """Return True for `total` images, evenly from `classes`."""
    selected = torch.zeros(len(source), dtype=torch.bool)
    for position, (label, members) in enumerate(_members(source, classes).items()):
        count = total // len(classes) + (position < total % len(classes))
        if count > len(members):
            name = source.classes[label] if 0 <= label < len(source.classes) else label
            raise DataError(
                f"{total} images over {len(classes)} classes are {count} of each, but class "
                f"{name!r} has only {len(members)}; request at most "
                f"{len(members) * len(classes)}."
            )
        # A prefix of one permutation: smaller subsets are contained in larger ones.
        selected[members[permutation(len(members), seed, use, label)[:count]]] = True
    return selected


def _members(source: Source, classes: Int64[Tensor, " classes"]) -> dict[int, Tensor]:
    """Map each class to the numbers of its images."""
    return {int(c): (source.labels == c).nonzero().flatten() for c in classes}
