"""Source of images with boxes, built from the annotations of a split after checking them."""

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal, final

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torchvision import tv_tensors

from understudy.batch import UNLABELLED
from understudy.data.source import ChooseCrop, FileSource, Source, Unreadable
from understudy.data.sources._annotations import Annotations, Faulty, ObjectTable
from understudy.data.sources._files import in_memory_if_small
from understudy.data.sources._readable import check
from understudy.errors import DataError

Difficult = Literal["ignore", "published"]
"""What becomes of objects that are marked difficult; see `recipe.Data.difficult`."""


@final
class AnnotatedSource(Source):
    """Images with boxes; `labels` tell for every class whether it is in an image.

    Attributes:
        labels: `(images, classes)`: 1 present, 0 absent, -1 (`UNLABELLED`) not known.
    """

    def __init__(
        self,
        images: Source,
        labels: Int64[Tensor, "images classes"],
        objects: ObjectTable,
        *,
        sides: Int64[Tensor, "images 2"],
        skipped: Sequence[str] = (),
        evaluated: "AnnotatedSource | None" = None,
    ) -> None:
        """Join images and objects.

        Args:
            images: Source of the images, without labels.
            labels: Presence of every class in every image.
            objects: Objects of all images, sorted by image.
            sides: Height and width of every image.
            skipped: Images and objects that were left out or repaired, each with the reason; the
                number of images without an object is added.
            evaluated: The same images with the labels of a test split, if those differ.
        """
        self.images, self.labels, self.objects, self._sides = images, labels, objects, sides
        self.classes, self.size, self.pixels = images.classes, images.size, images.pixels
        self.paths, self.contents = images.paths, images.contents
        self.skipped = (*skipped, *_background(objects, len(labels)))
        self._evaluated = evaluated
        counts = torch.bincount(objects.image, minlength=len(labels))
        self._ends = [0, *counts.cumsum(0).tolist()]

    def image(self, i: int) -> UInt8[Tensor, "3 height width"]:
        """Return image `i`; `DataError` if its file cannot be decoded."""
        return self.images.image(i)

    def crop(self, i: int, choose: ChooseCrop) -> UInt8[Tensor, "3 crop_height crop_width"]:
        """Return a crop of image `i`."""
        return self.images.crop(i, choose)

    def sides(self) -> Int64[Tensor, "images 2"]:
        """Return height and width of every image, as found when the files were checked."""
        return self._sides

    def for_evaluation(self) -> Source:
        """Return the same images with the labels of a test split; itself unless they differ."""
        return self._evaluated or self

    def target(self, i: int) -> dict[str, Any]:
        """Return the objects in image `i`, in the form that transforms of torchvision take.

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
        return self.images.images_digest

    @cached_property
    def targets_digest(self) -> str:
        """Sixteen hex digits that change with any box, class, flag or area."""
        content = sha256()
        for column in self.objects.columns():
            content.update(column.contiguous().numpy().data)
        return content.hexdigest()[:16]


def annotated_source(
    annotations: Annotations,
    *,
    train: bool,
    unreadable: Unreadable,
    faulty: Faulty,
    difficult: Difficult,
) -> AnnotatedSource:
    """Check images and annotations against each other, and return what can be used.

    Args:
        annotations: Annotated images of the split.
        train: True for the training split, which needs at least one object.
        unreadable: What to do with files that cannot be decoded.
        faulty: What to do with faulty annotations.
        difficult: What becomes of objects that are marked difficult.

    Raises:
        DataError: No image can be used, no training image has an object, or something is faulty and
            its policy is `fail`.
    """
    paths = list(annotations.paths)
    if not paths:
        raise DataError(_no_usable_image(annotations, annotations.rejected))
    checked = check(paths, annotations.root, unreadable)
    sides = torch.tensor([[0, 0] if isinstance(r, str) else r for r in checked.results])
    repaired = annotations.repaired(sides)
    left_out, lines = annotations.apply_policy(faulty, repaired.unusable)
    kept = torch.tensor([i for i in checked.kept if i not in left_out], dtype=torch.int64)
    if not len(kept):
        raise DataError(_no_usable_image(annotations, [*lines, *checked.skipped]))
    new_numbers = torch.full((len(paths),), -1)
    new_numbers[kept] = torch.arange(len(kept))
    objects = _renumbered(repaired.objects, new_numbers)
    if train and not len(objects.image):
        raise DataError(
            f"None of the {len(kept)} training images in {annotations.root} has an object to learn "
            f"from{_first(lines)}. Correct the annotations, or data.root."
        )
    dropped_images, dropped_classes = new_numbers[repaired.dropped[:, 0]], repaired.dropped[:, 1]
    is_kept = dropped_images >= 0
    dropped = dropped_images[is_kept], dropped_classes[is_kept]
    files = FileSource(
        [paths[i] for i in kept.tolist()],
        torch.full((len(kept),), UNLABELLED),
        annotations.classes,
        root=annotations.root,
        size=checked.size,
        contents=[checked.contents[i] for i in kept.tolist()],
    )
    images, skipped = in_memory_if_small(files), (*checked.skipped, *lines)
    shape = len(kept), len(annotations.classes)
    labels = _presence(objects, shape, dropped, difficult=UNLABELLED)
    source = AnnotatedSource(images, labels, objects, sides=sides[kept], skipped=skipped)
    if difficult == "ignore":
        return source
    return AnnotatedSource(
        images,
        # As published for LSHFM, an object marked difficult counts as present in training alone.
        _presence(objects, shape, dropped, difficult=1) if train else labels,
        objects[~objects.difficult],
        sides=sides[kept],
        skipped=skipped,
        evaluated=source if train else None,
    )


def _no_usable_image(annotations: Annotations, reasons: list[str]) -> str:
    return (
        f"No image in {annotations.root} can be used with its annotation{_first(reasons)}. Correct "
        "the files, or set data.source to their format."
    )


def _first(reasons: list[str]) -> str:
    return f", first: {reasons[0]}" if reasons else ""


def _renumbered(objects: ObjectTable, new_numbers: Int64[Tensor, " images"]) -> ObjectTable:
    """Renumber the images of objects; drop those of images whose new number is -1."""
    image, *others = objects.columns()
    return ObjectTable(new_numbers[image], *others)[new_numbers[image] >= 0]


def _presence(
    objects: ObjectTable,
    shape: tuple[int, int],
    dropped: tuple[Tensor, Tensor],
    *,
    difficult: int,
) -> Int64[Tensor, "images classes"]:
    """Return the presence of every class in every image.

    1 for classes with objects, `difficult` for those with only difficult ones, -1 (`UNLABELLED`)
    for those of which all objects were dropped, else 0.
    """
    labels = torch.zeros(shape, dtype=torch.int64)
    labels[dropped] = UNLABELLED
    labels[objects.image[objects.difficult], objects.labels[objects.difficult]] = difficult
    # Last, so that one object that is not difficult decides.
    labels[objects.image[~objects.difficult], objects.labels[~objects.difficult]] = 1
    return labels


def _background(objects: ObjectTable, images: int) -> list[str]:
    empty = images - len(set(objects.image.tolist()))
    return [f"{empty} of {images} images have no object: kept as background"] if empty else []
