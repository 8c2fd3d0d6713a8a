"""The division of a bank into shards: ranges of views × ranges of images."""

import re
from dataclasses import dataclass
from typing import TypeVar, final

from understudy.bank.manifest import Contract

_T = TypeVar("_T")

SHARD_BYTES = 2**28
"""Bytes of a shard, at most, where nobody says how many images it has."""

_MOST_IMAGES = 16_384
BATCH = 256
"""Images that the teacher computes at once: shards of whole batches waste none."""

_NAME = re.compile(r"v(\d+)\+(\d+)-i(\d+)\+(\d+)-([0-9a-f]{32})\.json")


@dataclass(frozen=True, order=True)
class Shard:
    """Records of some views of some images that follow each other: view by view, then by image.

    Attributes:
        image: First image.
        view: First view.
        images: Number of images.
        views: Number of views.
    """

    image: int
    view: int
    images: int
    views: int

    @property
    def records(self) -> int:
        """Number of records."""
        return self.images * self.views

    def name(self, digest: str) -> str:
        """Return the name of its objects, by their content too."""
        return f"v{self.view:05}+{self.views}-i{self.image:010}+{self.images}-{digest}"


@final
@dataclass(frozen=True)
class Division:
    """Division of all records of a bank.

    Attributes:
        images: Images of a shard; the last one may have fewer.
        views: Views of a shard.
    """

    images: int
    views: int

    @classmethod
    def chosen(
        cls, contract: Contract, *, few_views: bool, images: int | None = None
    ) -> "Division":
        """Return a division: all views where they are few, else one, as an epoch reads them.

        Args:
            contract: Size of the bank and of its records.
            few_views: Every image has the same finite number of views.
            images: Images of a shard; default: as many as `SHARD_BYTES` hold.
        """
        views = contract.num_views if few_views else 1
        if images is None:
            fit = SHARD_BYTES // (views * contract.stored_bytes)
            images = max(1, min(fit, _MOST_IMAGES))
            images -= images % BATCH if images > BATCH else 0
        return cls(min(images, contract.num_images), views)

    def shards(self, contract: Contract) -> list[Shard]:
        """Return all shards, in the order of their images, then of their views."""
        return [
            self.at(image, view, contract)
            for image in range(0, contract.num_images, self.images)
            for view in range(0, contract.num_views, self.views)
        ]

    def at(self, image: int, view: int, contract: Contract) -> Shard:
        """Return the shard of a record."""
        image, view = image - image % self.images, view - view % self.views
        return Shard(image, view, min(self.images, contract.num_images - image), self.views)


def parse_name(name: str) -> tuple[Shard, str] | None:
    """Return the shard and the digest of a marker's name; None for any other name.

    >>> shard = Shard(0, 1, 256, 1)
    >>> parse_name(shard.name("0" * 32) + ".json") == (shard, "0" * 32)
    True
    """
    if not (parts := _NAME.fullmatch(name)):
        return None
    view, views, image, images = (int(x) for x in parts.groups()[:4])
    return Shard(image, view, images, views), parts[5]


def share(shards: list[_T], part: tuple[int, int]) -> list[_T]:
    """Return the part `i` of `n`, counted from 1: neighbours, and of all parts almost as many.

    >>> share([Shard(i, 0, 1, 1) for i in range(5)], (2, 2))[0].image
    2
    """
    number, count = part
    first, last = (len(shards) * x // count for x in (number - 1, number))
    return shards[first:last]
