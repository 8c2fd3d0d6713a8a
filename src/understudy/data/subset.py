"""Parts of a source: fewer images, fewer labels, a share for validation; all decided by a seed."""

from functools import cached_property
from itertools import product
from typing import Any, final

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from understudy.batch import UNLABELLED
from understudy.data._order import shuffled
from understudy.data.source import Box, Source, short_digest
from understudy.errors import DataError

# In the place of an epoch, which is never negative: no order of an epoch shares these streams.
_IMAGES, _LABELS, _VALIDATION = -1, -2, -3


@final
class Subset(Source):
    """Some images of a source, in their order, with labels that may be hidden."""

    def __init__(
        self, source: Source, index: Int64[Tensor, " kept"], labels: Int64[Tensor, "kept ..."]
    ) -> None:
        self.source, self.index, self.labels = source, index, labels
        self.classes, self.size, self.skipped = source.classes, source.size, source.skipped
        self.pixels = None if source.pixels is None else source.pixels[index]

    def image(self, i: int) -> UInt8[Tensor, "3 height width"]:
        """Image number `i` of the subset."""
        return self.source.image(int(self.index[i]))

    def part(self, i: int, choose: Box) -> UInt8[Tensor, "3 part_height part_width"]:
        """Part of image number `i` of the subset."""
        return self.source.part(int(self.index[i]), choose)

    def target(self, i: int) -> Any:
        """Target of image number `i` of the subset."""
        return self.source.target(int(self.index[i]))

    def sides(self) -> Int64[Tensor, "kept 2"]:
        """Height and width of every image of the subset."""
        return self.source.sides()[self.index]

    @cached_property
    def images_digest(self) -> str:
        """Sixteen hex digits of the whole source's digest, and of which images are kept."""
        return short_digest(self.source.images_digest, self.index.tolist())

    @property
    def targets_digest(self) -> str:
        """That of the whole source."""
        return self.source.targets_digest


def class_balanced(
    source: Source, *, images: int | None = None, labels: int | None = None, seed: int
) -> Source:
    """Keep only `images` images and only `labels` labels, the same number of every class.

    What does not divide evenly goes to the first classes. A smaller choice is contained in a
    larger one under the same seed. Unlabelled images are kept as if they were one more class.
    Where an image has several classes, images and those that keep their labels are any.

    Raises:
        DataError: More asked for than a class has, or than there are images.
    """
    take = _any if source.labels.ndim == 2 else _of_every_class
    if images is not None:
        kept = take(source, images, seed, _IMAGES)
        source = Subset(source, kept.nonzero().flatten(), source.labels[kept])
    if labels is not None:
        shown = take(source, labels, seed, _LABELS)
        hidden = source.labels.clone()
        hidden[~shown] = UNLABELLED
        source = Subset(source, torch.arange(len(source)), hidden)
    return source


def split(source: Source, validation: float, *, seed: int) -> tuple[Subset, Subset]:
    """Training and validation part; of every class the share `validation` is validation.

    Where an image has several classes, the share is kept as far as these go together, and every
    class with two images is in both parts if that can be.

    Raises:
        DataError: The share is not between 0 and 1, or leaves one part empty.
    """
    held_back = _held_back_of_several if source.labels.ndim == 2 else _held_back
    chosen = held_back(source, validation, seed)
    if not 0 < validation < 1 or not 0 < int(chosen.sum()) < len(source):
        raise DataError(
            f"A validation share of {validation} of {len(source)} images leaves one part empty; "
            "choose a data.validation between 0 and 1 for which every class is large enough."
        )
    train, held = (
        Subset(source, part.nonzero().flatten(), source.labels[part]) for part in (~chosen, chosen)
    )
    return train, held


def _held_back(source: Source, share: float, seed: int) -> Bool[Tensor, " images"]:
    chosen = torch.zeros(len(source), dtype=torch.bool)
    for label, members in _members(source, torch.unique(source.labels)).items():
        count = round(share * len(members))
        chosen[members[shuffled(len(members), seed, _VALIDATION, label)[:count]]] = True
    return chosen


def _held_back_of_several(source: Source, share: float, seed: int) -> Bool[Tensor, " images"]:
    """Class by class, the rarest first: its images are the hardest to place."""
    chosen, open_ = torch.zeros(2, len(source), dtype=torch.bool)
    open_[:] = True
    present = source.labels == 1
    for label in present.sum(0).argsort(stable=True).tolist():
        order = shuffled(len(source), seed, _VALIDATION, label)
        _hold(chosen, open_, present[:, label], share, order)
    _hold(chosen, open_, open_.clone(), share, shuffled(len(source), seed, _VALIDATION, -1))
    return _mended(chosen, present) if 0 < share < 1 else chosen


def _hold(
    chosen: Bool[Tensor, " images"],
    open_: Bool[Tensor, " images"],
    members: Bool[Tensor, " images"],
    share: float,
    order: Int64[Tensor, " images"],
) -> None:
    """Choose of the members that are still open, until a share of all members is chosen."""
    missing = round(share * int(members.sum())) - int((chosen & members).sum())
    free = order[(open_ & members)[order]]
    chosen[free[: max(missing, 0)]] = True
    open_[members] = False


def _mended(
    chosen: Bool[Tensor, " images"], present: Bool[Tensor, "images classes"]
) -> Bool[Tensor, " images"]:
    """Move an image for each class that one part lacks, if the other can do without it."""
    for label, side in product(range(present.shape[1]), (True, False)):
        here, members = chosen == side, present[:, label]
        if (here & members).any():
            continue
        others = present[~here].sum(0)
        spare = members & (~present | (others > 1)).all(1)
        chosen[spare.nonzero()[:1]] = side
    return chosen


def _any(source: Source, total: int, seed: int, use: int) -> Bool[Tensor, " images"]:
    """Any `total` images of which a label is known, or any where all are to be kept."""
    able = source.labelled if use == _LABELS else torch.ones(len(source), dtype=torch.bool)
    if total > int(able.sum()):
        raise DataError(
            f"{total} images are asked for, but there are only {int(able.sum())}; ask for fewer."
        )
    order = shuffled(len(source), seed, use)
    chosen = torch.zeros_like(able)
    chosen[order[able[order]][:total]] = True
    return chosen


def _of_every_class(source: Source, total: int, seed: int, use: int) -> Bool[Tensor, " images"]:
    known = source.labels if use == _IMAGES else source.labels[source.labelled]
    return _balanced(source, torch.unique(known), total, seed, use)


def _balanced(
    source: Source, classes: Int64[Tensor, " classes"], total: int, seed: int, use: int
) -> Bool[Tensor, " images"]:
    """Which images are chosen when `total` are taken evenly from `classes`."""
    chosen = torch.zeros(len(source), dtype=torch.bool)
    for place, (label, members) in enumerate(_members(source, classes).items()):
        count = total // len(classes) + (place < total % len(classes))
        if count > len(members):
            name = source.classes[label] if 0 <= label < len(source.classes) else label
            raise DataError(
                f"{total} images over {len(classes)} classes are {count} of each, but class "
                f"{name!r} has only {len(members)}; ask for at most {len(members) * len(classes)}."
            )
        chosen[members[shuffled(len(members), seed, use, label)[:count]]] = True
    return chosen


def _members(source: Source, classes: Int64[Tensor, " classes"]) -> dict[int, Tensor]:
    return {int(c): (source.labels == c).nonzero().flatten() for c in classes}
