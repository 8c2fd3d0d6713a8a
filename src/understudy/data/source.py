"""Image sources: the abstract `Source`, and its two general forms, in memory and in files."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Literal, final

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from understudy.batch import labelled
from understudy.data._image import decode, sides_of

Split = Literal["train", "validation", "test"]
"""`validation` chooses the best epoch, which not every data set has; `test` is only measured."""

Unreadable = Literal["skip", "fail"]
"""Policy for files that cannot be decoded: leave them out, or stop."""

ChooseCrop = Callable[[int, int], tuple[int, int, int, int]]
"""Maps height and width of an image to a crop: top, left, height, width."""


_WRITTEN = 2**14
"""Numbers that are written at once."""


class Source(ABC):
    """Images with random access, their labels, and what else is known about them.

    Attributes:
        classes: Class names in the order of the labels; empty if unknown.
        labels: Class number of each image; `UNLABELLED` (-1) where it is not known. With several
            classes in an image, `(images, classes)`: 1 present, 0 absent, -1 not known.
        pixels: All images as one tensor, if they are small and kept in memory; else None.
        size: Side of the images if all are squares of one size, else None.
        skipped: Images and objects that were left out or repaired, each with the reason.
        split_name: Name of the split in the data set, such as `val`; empty if not recorded.
        paths: File of each image; empty if they are in no files of their own.
        contents: Digest of the encoded content of each image; empty if not known.
        shards: Number of the first image of each shard, and of all images, where images that follow
            each other are read fast; None where any order is as good.
        top: Folder that holds all files of the source, none of which is a link; empty if not known.
    """

    split_name: str = ""
    shards: Int64[Tensor, " shards_and_one"] | None = None
    top: str = ""
    paths: Sequence[Path] = ()
    contents: Sequence[str] = ()
    classes: tuple[str, ...]
    labels: Int64[Tensor, "images ..."]
    pixels: UInt8[Tensor, "images 3 height width"] | None
    size: int | None
    skipped: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def image(self, i: int) -> UInt8[Tensor, "3 height width"]:
        """Return image `i` in RGB, with its EXIF orientation applied.

        Raises:
            DataError: The image cannot be decoded.
        """

    def crop(self, i: int, choose: ChooseCrop) -> UInt8[Tensor, "3 crop_height crop_width"]:
        """Return the crop of image `i` that `choose` selects from its height and width."""
        image = self.image(i)
        top, left, height, width = choose(*image.shape[1:])
        return image[:, top : top + height, left : left + width]

    def for_evaluation(self) -> "Source":
        """Return the same images with the labels of a test split; itself unless they differ."""
        return self

    def target(self, i: int) -> Any:
        """Return what is known of image `i` beyond class labels, such as boxes; default: None."""
        return None

    def sides(self) -> Int64[Tensor, "images 2"]:
        """Return height and width of every image, with EXIF orientation applied.

        The default decodes every image; sources that know the sides override it.
        """
        return torch.tensor([self.image(i).shape[1:] for i in range(len(self))])

    def within(self, index: Int64[Tensor, " kept"]) -> "Source":
        """Return the same images, of which only some may stand in for a faulty one; default: all.

        What is held out of training must not come back in the place of a training image.
        """
        return self

    def is_replaced(self, i: int) -> bool:
        """Return True if another image stands in for image `i`, known once it has been read."""
        return False

    def replaced(self) -> tuple[str, ...]:
        """Return the images that were faulty when they were decoded, each with the reason.

        Another image stands in for each. The default is none: sources that decode every image
        beforehand have left them out.
        """
        return ()

    @cached_property
    @abstractmethod
    def images_digest(self) -> str:
        """Sixteen hex digits that change with the images or their order, not with their labels."""

    @property
    def targets_digest(self) -> str:
        """Sixteen hex digits that change with any `target`; empty for a source without targets."""
        return ""

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits that change with images, order, labels, class names or targets."""
        # Added only if there are targets: all other sources keep the digests of earlier versions.
        targets = filter(None, [self.targets_digest])
        return short_digest(self.images_digest, self.labels, self.classes, *targets)

    @property
    def labelled(self) -> Bool[Tensor, " images"]:
        """True for every image with a label; of several classes, one known class is enough."""
        return labelled(self.labels)


def short_digest(*content: object) -> str:
    """Return the first sixteen hex digits of the SHA-256 of some values, as `repr` writes them.

    A tensor of numbers is written as the list of them, in parts: as one text, a million of them
    would take more memory than the images' names.
    """
    digest = sha256(b"(")
    for i, value in enumerate(content):
        digest.update(b", " if i else b"")
        for text in _written(value):
            digest.update(text.encode())
    digest.update(b",)" if len(content) == 1 else b")")
    return digest.hexdigest()[:16]


def _written(value: object) -> Iterator[str]:
    if not isinstance(value, Tensor) or value.ndim != 1:
        yield repr(value.tolist() if isinstance(value, Tensor) else value)
        return
    yield "["
    for start in range(0, len(value), _WRITTEN):
        yield (", " if start else "") + repr(value[start : start + _WRITTEN].tolist())[1:-1]
    yield "]"


def content_digest(content: bytes) -> str:
    """Return the first 32 hex digits of the SHA-256 of a file's content."""
    return sha256(content).hexdigest()[:32]


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
        paths: Sequence[Path] = (),
        contents: Sequence[str] = (),
    ) -> None:
        self.paths, self.contents = tuple(paths), tuple(contents)
        self.pixels: UInt8[Tensor, "images 3 side side"] = pixels
        self.labels = labels
        self.classes = tuple(classes)
        height, width = pixels.shape[2:]
        self.size = height if height == width else None
        self.skipped = tuple(skipped)

    def image(self, i: int) -> UInt8[Tensor, "3 side side"]:
        """Return image `i`."""
        return self.pixels[i]

    @cached_property
    def images_digest(self) -> str:
        """Sixteen hex digits of the pixels."""
        return sha256(self.pixels.contiguous().numpy().data).hexdigest()[:16]


@final
class FileSource(Source):
    """Image files of any size, each decoded on every access."""

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
        contents: Sequence[str] = (),
    ) -> None:
        """Store paths and labels; no file is opened.

        Args:
            paths: Image files, in the order of the source.
            labels: Class number of each image; -1 (`UNLABELLED`) where it is not known.
            classes: Class names in the order of the labels.
            root: Folder of the data set. The digest names files relative to it, so that a moved
                folder keeps its digest.
            size: Side of the images if all are squares of one size, else None.
            skipped: Files that were left out, each with the reason.
            contents: Digest of the content of every file, if it is known already.
        """
        self.paths = tuple(paths)
        self.labels = labels
        self.classes = tuple(classes)
        self.root = root
        self.size = size
        self.skipped = tuple(skipped)
        self.contents = tuple(contents)

    def image(self, i: int) -> UInt8[Tensor, "3 height width"]:
        """Decode image `i`; `DataError` if its file cannot be read."""
        return decode(self.paths[i])

    def sides(self) -> Int64[Tensor, "images 2"]:
        """Return height and width of every image, read from the headers of the files."""
        with ThreadPool() as pool:
            return torch.tensor(pool.map(sides_of, self.paths, chunksize=64))

    @cached_property
    def images_digest(self) -> str:
        """Sixteen hex digits of the list of paths and contents.

        A source that checks its files knows the digests of the contents; else all files are read.
        """
        return short_digest(list(zip(map(self._name, self.paths), self._digests(), strict=True)))

    def _digests(self) -> Sequence[str]:
        if self.contents:
            return self.contents
        with ThreadPool() as pool:
            return pool.map(lambda path: content_digest(path.read_bytes()), self.paths)

    def _name(self, path: Path) -> str:
        inside = path.is_relative_to(self.root)
        return (path.relative_to(self.root) if inside else path).as_posix()
