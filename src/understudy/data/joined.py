"""Training images of a source, and further images without labels behind them."""

from functools import cached_property
from typing import Any, final

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from understudy.batch import UNLABELLED
from understudy.data._lazy import chained
from understudy.data.source import ChooseCrop, MemorySource, Source, short_digest


def join(labelled: Source, more: Source) -> Source:
    """Return the images of a source, and those of another behind them, none of which has a label.

    They are in memory if both are, and of one size.

    Args:
        labelled: Images with labels, or without.
        more: Images whose labels are not known.
    """
    if labelled.pixels is None or more.pixels is None or labelled.size != more.size:
        return JoinedSource(labelled, more)
    joined = JoinedSource(labelled, more)
    source = MemorySource(
        torch.cat([labelled.pixels, more.pixels]),
        joined.labels,
        joined.classes,
        skipped=joined.skipped,
        paths=joined.paths,
        contents=joined.contents,
    )
    source.split_name = joined.split_name
    return source


@final
class JoinedSource(Source):
    """The images of two sources, one after the other; those of the second have no labels."""

    pixels = None

    def __init__(self, first: Source, second: Source) -> None:
        self._parts = first, second
        self.classes, self.split_name = first.classes, first.split_name
        self.skipped = (*first.skipped, *second.skipped)
        self.size = first.size if first.size == second.size else None
        unknown = first.labels.new_full((len(second), *first.labels.shape[1:]), UNLABELLED)
        self.labels = torch.cat([first.labels, unknown])
        self.paths = chained(first.paths, second.paths)
        if first.shards is not None:
            more = torch.tensor([len(second)]) if second.shards is None else second.shards[1:]
            self.shards = torch.cat([first.shards, more + len(first)])
        self.contents = chained(first.contents, second.contents)

    def image(self, i: int) -> UInt8[Tensor, "3 height width"]:
        """Return image `i` of both."""
        source, number = self._of(i)
        return source.image(number)

    def crop(self, i: int, choose: ChooseCrop) -> UInt8[Tensor, "3 crop_height crop_width"]:
        """Return a crop of image `i`."""
        source, number = self._of(i)
        return source.crop(number, choose)

    def target(self, i: int) -> Any:
        """Return the target of image `i`."""
        source, number = self._of(i)
        return source.target(number)

    def sides(self) -> Int64[Tensor, "images 2"]:
        """Return height and width of every image."""
        return torch.cat([part.sides() for part in self._parts])

    def within(self, index: Int64[Tensor, " kept"]) -> "Source":
        """Return the same images, of which only some may stand in for a faulty one."""
        first, second = self._parts
        of_first, of_second = index[index < len(first)], index[index >= len(first)] - len(first)
        return JoinedSource(first.within(of_first), second.within(of_second))

    def is_replaced(self, i: int) -> bool:
        """Return True if another image stands in for image `i`."""
        source, number = self._of(i)
        return source.is_replaced(number)

    def replaced(self) -> tuple[str, ...]:
        """Return the faulty images of both."""
        return tuple(line for part in self._parts for line in part.replaced())

    @cached_property
    def images_digest(self) -> str:
        """Sixteen hex digits of the digests of both."""
        return short_digest(*(part.images_digest for part in self._parts))

    @property
    def targets_digest(self) -> str:
        """The digest of the first source's targets."""
        return self._parts[0].targets_digest

    def _of(self, i: int) -> tuple[Source, int]:
        first, second = self._parts
        return (first, i) if i < len(first) else (second, i - len(first))
