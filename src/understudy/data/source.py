"""What a source of images is: random access, and what is known about the images."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import sha256
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from understudy.batch import labelled
from understudy.data._image import decode, sides_of

Box = Callable[[int, int], tuple[int, int, int, int]]
"""Height and width of an image → top, left, height and width of a part of it."""


class Source(ABC):
    """Images at random access, with what is known about them.

    Attributes:
        classes: Class names in the order of the labels; empty if unknown.
        labels: Class number of each image; `UNLABELLED` (-1) where it is not known. With several
            classes in an image, `(images, classes)`: 1 present, 0 absent, -1 not known.
        pixels: All images at once, for small ones kept in memory; None for the others.
        size: Side of the images if all are squares of one size, else None.
        skipped: What was left out or repaired, each with the reason.
    """

    classes: tuple[str, ...]
    labels: Int64[Tensor, "images ..."]
    pixels: UInt8[Tensor, "images 3 height width"] | None
    size: int | None
    skipped: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def image(self, i: int) -> UInt8[Tensor, "3 height width"]:
        """Image number `i`; `DataError` if it cannot be decoded."""

    def part(self, i: int, choose: Box) -> UInt8[Tensor, "3 part_height part_width"]:
        """The part of image number `i` that `choose` picks, once it knows height and width."""
        image = self.image(i)
        top, left, height, width = choose(*image.shape[1:])
        return image[:, top : top + height, left : left + width]

    def target(self, i: int) -> Any:
        """What a task with more than one label knows of image `i`, such as boxes; default: None."""
        return None

    def sides(self) -> Int64[Tensor, "images 2"]:
        """Height and width of every image, upright; decodes all where nothing else tells them."""
        return torch.tensor([self.image(i).shape[1:] for i in range(len(self))])

    @cached_property
    @abstractmethod
    def images_digest(self) -> str:
        """Sixteen hex digits that change with the images or their order, not with their labels."""

    @property
    def targets_digest(self) -> str:
        """Sixteen hex digits that change with any `target`; empty where there are none."""
        return ""

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits that change with images, order, labels, class names or targets."""
        targets = filter(None, [self.targets_digest])
        return short_digest(self.images_digest, self.labels.tolist(), self.classes, *targets)

    @property
    def labelled(self) -> Bool[Tensor, " images"]:
        """Of which images a label is known."""
        return labelled(self.labels)


def short_digest(*content: object) -> str:
    """Sixteen hex digits of the written form of some values."""
    return sha256(repr(content).encode()).hexdigest()[:16]


@final
class MemorySource(Source):
    """Small images of one size, all in memory."""

    def __init__(
        self,
        pixels: UInt8[Tensor, "images 3 side side"],
        labels: Int64[Tensor, " images"],
        classes: Sequence[str],
        *,
        skipped: Sequence[str] = (),
    ) -> None:
        self.pixels: UInt8[Tensor, "images 3 side side"] = pixels
        self.labels = labels
        self.classes = tuple(classes)
        height, width = pixels.shape[2:]
        self.size = height if height == width else None
        self.skipped = tuple(skipped)

    def image(self, i: int) -> UInt8[Tensor, "3 side side"]:
        """Image number `i`."""
        return self.pixels[i]

    @cached_property
    def images_digest(self) -> str:
        """Sixteen hex digits of the pixels."""
        return sha256(self.pixels.contiguous().numpy().data).hexdigest()[:16]


@final
class FileSource(Source):
    """Image files of any size, decoded when asked for."""

    pixels = None

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Int64[Tensor, " images"],
        classes: Sequence[str],
        *,
        root: Path,
        size: int | None = None,
        skipped: Sequence[str] = (),
    ) -> None:
        """The digest names files by their place under `root`: a moved folder keeps its digest."""
        self.paths = tuple(paths)
        self.labels = labels
        self.classes = tuple(classes)
        self.root = root
        self.size = size
        self.skipped = tuple(skipped)

    def image(self, i: int) -> UInt8[Tensor, "3 height width"]:
        """Image number `i`, upright and in RGB; `DataError` if its file cannot be decoded."""
        return decode(self.paths[i])

    def sides(self) -> Int64[Tensor, "images 2"]:
        """Height and width of every image, upright, from the headers of the files."""
        with ThreadPool() as pool:
            return torch.tensor(pool.map(sides_of, self.paths, chunksize=64))

    @cached_property
    def images_digest(self) -> str:
        """Sixteen hex digits of the listing: paths and sizes in bytes."""
        return short_digest([(self._name(path), path.stat().st_size) for path in self.paths])

    def _name(self, path: Path) -> str:
        inside = path.is_relative_to(self.root)
        return (path.relative_to(self.root) if inside else path).as_posix()
