"""Read the items of a program's dataset once, and build a source of them."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from understudy.data._given_images import as_rgb
from understudy.data._own_targets import Targets
from understudy.data._workers import Sent, lost_workers_explained, received, sent
from understudy.data.source import MemorySource, Source, Unreadable, content_digest, short_digest
from understudy.data.sources._annotated import AnnotatedSource
from understudy.data.sources._files import SMALL, is_small
from understudy.errors import DataError, UnderstudyError, memory_ran_out

LOGGER = logging.getLogger("understudy")

LABELS = ("label", "labels", "fine_label", "target")
"""Keys of an item that may hold its label, the one to be taken first."""
_IMAGES = ("image", "img", "pixels")
_FEW = 1000
"""Datasets of more images are announced, as reading them takes its time."""


@final
class Images:
    """The images of one split as they were read: digests, sides and targets of each.

    Attributes:
        targets: What the dataset tells of each image that could be read.
        sides: Height and width of each.
    """

    def __init__(
        self,
        dataset: Any,
        name: str,
        rows: Sequence[tuple[int, str, tuple[int, int], Any]],
        skipped: Sequence[str],
        pixels: UInt8[Tensor, "images 3 side side"] | None,
    ) -> None:
        self._dataset, self._name, self._skipped, self._pixels = dataset, name, skipped, pixels
        self._index = [row[0] for row in rows]
        self._digests = [row[1] for row in rows]
        self.sides = torch.tensor([row[2] for row in rows])
        self.targets = [row[3] for row in rows]

    def source(self, targets: Targets, classes: tuple[str, ...]) -> Source:
        """Return the images with their labels or objects."""
        kept = targets.kept.tolist()
        skipped = (*self._skipped, *targets.skipped)
        images: Source
        if self._pixels is not None:
            contents = [self._digests[i] for i in kept]
            images = MemorySource(
                self._pixels[targets.kept],
                targets.labels,
                classes,
                skipped=skipped,
                contents=contents,
            )
        else:
            rows = [(self._index[i], self._digests[i]) for i in kept]
            sides = self.sides[targets.kept]
            images = ItemSource(
                self._dataset, self._name, rows, targets.labels, classes, sides, skipped
            )
        if targets.objects is None:
            return images
        return AnnotatedSource(
            images,
            targets.labels,
            targets.objects,
            sides=self.sides[targets.kept],
            skipped=skipped,
        )


@final
class ItemSource(Source):
    """Images of a program's dataset, each read on every access.

    Args:
        dataset: Gives the items.
        name: What errors call it.
        rows: Number of each image in the dataset, and the digest of its pixels.
        labels: Label of each image.
        classes: Class names in the order of the labels.
        sides: Height and width of each image.
        skipped: Items that were left out, each with the reason.
    """

    pixels = None

    def __init__(
        self,
        dataset: Any,
        name: str,
        rows: Sequence[tuple[int, str]],
        labels: Int64[Tensor, "images ..."],
        classes: tuple[str, ...],
        sides: Int64[Tensor, "images 2"],
        skipped: Sequence[str],
    ) -> None:
        self._dataset, self._name, self._rows, self._sides = dataset, name, rows, sides
        self.labels, self.classes, self.skipped = labels, classes, tuple(skipped)
        self.contents = [digest for _, digest in rows]
        self.size = int(sides[0, 0]) if (sides == sides[0, 0]).all() else None

    def image(self, i: int) -> UInt8[Tensor, "3 height width"]:
        """Return image `i`.

        Raises:
            DataError: It cannot be read, or is another than when it was read first.
        """
        number, digest = self._rows[i]
        pixels, _ = _parts(self._dataset, number, self._name)
        if _digest(pixels) != digest:
            raise _changing(self._name, number)
        return pixels

    def sides(self) -> Int64[Tensor, "images 2"]:
        """Return height and width of every image."""
        return self._sides

    @cached_property
    def images_digest(self) -> str:
        """Sixteen hex digits of the pixels of all images."""
        return short_digest(self.contents)


def read(dataset: Any, name: str, unreadable: Unreadable, workers: int) -> Images:
    """Read all images of a dataset once.

    Raises:
        DataError: None can be read, one cannot and `unreadable` is `fail`, or the dataset gives
            other images when it is asked again.
    """
    if len(dataset) > _FEW:
        LOGGER.info(f"Reading the {len(dataset):,} images of {name}: {type(dataset).__name__}.")
    rows: list[tuple[int, str, tuple[int, int], Any]] = []
    skipped: list[str] = []
    small, kept_small = list[Tensor](), True
    for number, item in enumerate(_items(_Reader(dataset, name), len(dataset), workers)):
        if isinstance(item, str):
            if unreadable == "fail":
                raise DataError(f"{item}. Leave such images out by data.unreadable=skip.")
            skipped.append(item)
            continue
        digest, sides, target, packed = item
        rows.append((number, digest, sides, target))
        if packed is not None and kept_small:
            small.append(received(packed))
        is_first_size = sides == rows[0][2]
        kept_small &= packed is not None and is_first_size and is_small(len(rows), sides[0])
    if not rows:
        raise DataError(f"None of the images of {name} can be read, first: {skipped[0]}.")
    for number, digest, _, _ in (rows[0], rows[len(rows) // 2], rows[-1]):
        if _digest(_parts(dataset, number, name)[0]) != digest:
            raise _changing(name, number)
    return Images(dataset, name, rows, skipped, torch.stack(small) if kept_small else None)


@final
class _Reader:
    """Reads single items of a dataset: their digest, sides, target, and pixels if they are small.

    Args:
        dataset: The dataset.
        name: What errors call it.
    """

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset, self._name = dataset, name

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, i: int) -> tuple[str, tuple[int, int], Any, Sent | None] | str:
        """Return what is known of an item; why it cannot be read, if it cannot."""
        try:
            pixels, target = _parts(self._dataset, i, self._name)
        except DataError as error:
            return str(error).rstrip(".")
        height, width = pixels.shape[1:]
        small = height == width <= SMALL
        return _digest(pixels), (height, width), target, sent(pixels.clone()) if small else None


def _items(reader: _Reader, count: int, workers: int) -> Iterator[Any]:
    if not workers:
        yield from map(reader.__getitem__, range(count))
        return
    loader: DataLoader[Any] = DataLoader(
        reader,  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=_unchanged,
        num_workers=workers,
        # Without this, DataLoader would advance torch's global generator.
        generator=torch.Generator(),
    )
    with lost_workers_explained():
        yield from loader


def _unchanged(item: Any) -> Any:
    return item


def _parts(dataset: Any, i: int, name: str) -> tuple[UInt8[Tensor, "3 height width"], Any]:
    """Return image and target of an item; the target is None if there is none.

    Raises:
        DataError: The dataset fails, or the item is of another form.
    """
    what = f"image {i} of {name}"
    try:
        item = dataset[i]
    except UnderstudyError:
        raise
    except Exception as error:
        if memory_ran_out(error):
            raise
        raise DataError(f"{what} cannot be read: {type(error).__name__}: {error}") from error
    image, target = _image_and_target(item, what, getattr(dataset, "features", None))
    if not isinstance(image, Image.Image | np.ndarray | Tensor):
        raise DataError(
            f"{what} is a {type(image).__name__}; it must be a PIL image, an array or a tensor"
        )
    return as_rgb(image, what), target


def _image_and_target(item: Any, what: str, features: Any) -> tuple[Any, Any]:
    """Return image and target of an item; `features` are the columns of Hugging Face, if it has."""
    if isinstance(item, tuple | list):
        if len(item) != 2:
            raise DataError(f"{what} comes in {len(item)} values; it must be (image, label)")
        return item[0], item[1]
    if not isinstance(item, Mapping):
        return item, None
    columns = features if isinstance(features, Mapping) else {}
    keys = [key for key, kind in columns.items() if type(kind).__name__ == "Image"]
    image = next((item[key] for key in (*keys, *_IMAGES) if key in item), None)
    if image is None:
        raise DataError(f"{what} has no key 'image'; it has: {', '.join(map(str, item))}")
    return image, next((item[key] for key in LABELS if key in item), None)


def _digest(pixels: UInt8[Tensor, "3 height width"]) -> str:
    return short_digest(tuple(pixels.shape), content_digest(pixels.contiguous().numpy().tobytes()))


def _changing(name: str, number: int) -> DataError:
    return DataError(
        f"Image {number} of {name} is another one each time it is asked for: leave random "
        "transforms out of the dataset, and set data.augment and data.transforms instead, which "
        "run after reading and can be repeated."
    )
