"""From a list of annotated images to a source: images with objects, checked against each other."""

from functools import cached_property
from hashlib import sha256
from typing import Any, Literal, final

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torchvision import tv_tensors

from understudy.batch import UNLABELLED
from understudy.data.source import Box, FileSource, Source
from understudy.data.sources._annotations import Faulty, Listing, Table
from understudy.data.sources._files import fits, in_memory
from understudy.data.sources._readable import check
from understudy.errors import DataError

Difficult = Literal["ignore", "published"]
"""What becomes of objects that are marked difficult; see `recipe.Data.difficult`."""


@final
class AnnotatedSource(Source):
    """Images with boxes; `labels` says of every class whether it is in an image.

    Attributes:
        labels: `(images, classes)`: 1 present, 0 absent, -1 (`UNLABELLED`) not known.
    """

    def __init__(
        self,
        files: Source,
        labels: Int64[Tensor, "images classes"],
        objects: Table,
        *,
        sides: Int64[Tensor, "images 2"],
    ) -> None:
        self.files, self.labels, self.objects, self._sides = files, labels, objects, sides
        self.classes, self.size, self.pixels = files.classes, files.size, files.pixels
        self.skipped = files.skipped
        counts = torch.bincount(objects.image, minlength=len(labels))
        self._ends = [0, *counts.cumsum(0).tolist()]

    def image(self, i: int) -> UInt8[Tensor, "3 height width"]:
        """Image number `i`, upright and in RGB; `DataError` if its file cannot be decoded."""
        return self.files.image(i)

    def part(self, i: int, choose: Box) -> UInt8[Tensor, "3 part_height part_width"]:
        """Part of image number `i`."""
        return self.files.part(i, choose)

    def sides(self) -> Int64[Tensor, "images 2"]:
        """Height and width of every image, as the check has found them."""
        return self._sides

    def target(self, i: int) -> dict[str, Any]:
        """The objects in image `i`, for transforms of torchvision.

        `boxes` (objects, 4), left, top, right and bottom in pixels; `labels` (objects,), from 0;
        `difficult`, `crowd` (objects,), bool; `areas` (objects,), in pixels.
        """
        rows = slice(self._ends[i], self._ends[i + 1])
        _, labels, boxes, difficult, crowd, areas = (x[rows] for x in self.objects.columns())
        height, width = self._sides[i].tolist()
        return {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),
            "labels": labels,
            "difficult": difficult,
            "crowd": crowd,
            "areas": areas,
        }

    @cached_property
    def images_digest(self) -> str:
        """Sixteen hex digits that change with the images or their order."""
        return self.files.images_digest

    @cached_property
    def targets_digest(self) -> str:
        """Sixteen hex digits that change with any box, class, flag or area."""
        content = sha256()
        for column in self.objects.columns():
            content.update(column.contiguous().numpy().data)
        return content.hexdigest()[:16]


def annotated(
    listing: Listing,
    *,
    train: bool,
    unreadable: Literal["skip", "fail"],
    faulty: Faulty,
    difficult: Difficult,
) -> AnnotatedSource:
    """The images of a listing that can be used, with their objects.

    Raises:
        DataError: None can, or something is at fault that is to stop.
    """
    paths = list(listing.paths)
    if not paths:
        raise DataError(_nothing(listing, listing.lost))
    checked = check(paths, listing.root, unreadable)
    found = [result for *_, result in checked.record.values()]
    sides = torch.tensor([[0, 0] if isinstance(x, str) else x for x in found])
    table, hopeless = listing.mended(sides)
    out, said = listing.settle(faulty, hopeless)
    kept = torch.tensor([i for i in checked.kept if i not in out], dtype=torch.int64)
    if not len(kept):
        raise DataError(_nothing(listing, [*said, *checked.skipped]))
    table = _renumbered(table, kept, len(paths))
    if train and not len(table.image):
        raise DataError(
            f"None of the {len(kept)} training images in {listing.root} shows an object to learn "
            f"from{_first(said)}. Correct the annotations, or data.root."
        )
    labels = _presence(
        table,
        (len(kept), len(listing.numbers)),
        difficult=1 if train and difficult == "published" else UNLABELLED,
    )
    if difficult == "published":
        table = table[~table.difficult]
    files: Source = FileSource(
        [paths[i] for i in kept.tolist()],
        torch.full((len(kept),), UNLABELLED),
        tuple(listing.numbers),
        root=listing.root,
        size=checked.size,
        skipped=(*checked.skipped, *said, *_background(table, len(kept))),
    )
    if fits(len(kept), checked.size):
        files = in_memory(files)
    return AnnotatedSource(files, labels, table, sides=sides[kept])


def _nothing(listing: Listing, reasons: list[str]) -> str:
    return (
        f"No image in {listing.root} can be used with its annotation{_first(reasons)}. Correct the "
        "files, or set data.source to the format that they have."
    )


def _first(reasons: list[str]) -> str:
    return f", first: {reasons[0]}" if reasons else ""


def _renumbered(table: Table, kept: Int64[Tensor, " kept"], images: int) -> Table:
    """The objects in the images that are kept, which are counted anew."""
    place = torch.full((images,), -1)
    place[kept] = torch.arange(len(kept))
    image, *others = table.columns()
    return Table(place[image], *others)[place[image] >= 0]


def _presence(
    table: Table, shape: tuple[int, int], *, difficult: int
) -> Int64[Tensor, "images classes"]:
    """Which classes are in which image; `difficult` where a class has no other objects."""
    labels = torch.zeros(shape, dtype=torch.int64)
    labels[table.image[table.difficult], table.labels[table.difficult]] = difficult
    labels[table.image[~table.difficult], table.labels[~table.difficult]] = 1
    return labels


def _background(table: Table, images: int) -> list[str]:
    empty = images - len(set(table.image.tolist()))
    return [f"{empty} of {images} images show no object: kept as background"] if empty else []
