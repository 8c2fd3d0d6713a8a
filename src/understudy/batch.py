"""What travels from the data to the networks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.errors import DataError

UNLABELLED = -1


def labelled(labels: Int[Tensor, "images ..."]) -> Bool[Tensor, " images"]:
    """Of which images a label is known; of several classes, one is enough."""
    known = labels != UNLABELLED
    return known.any(1) if known.ndim == 2 else known


@dataclass(frozen=True)
class Mixed:
    """What mixup or cutmix put into each image of a batch: some of another one.

    Attributes:
        labels: Class of the other image; `UNLABELLED` (-1) where it is not known.
        share: Of the image itself, in [0, 1]; what is missing to 1 is of the other.
    """

    labels: Int[Tensor, " batch"]
    share: Float[Tensor, " batch"]

    def to(self, device: torch.device) -> "Mixed":
        """The same on another device."""
        labels, share = (x.to(device, non_blocking=True) for x in (self.labels, self.share))
        return Mixed(labels, share)

    def __getitem__(self, rows: slice | Tensor) -> "Mixed":
        return Mixed(self.labels[rows], self.share[rows])


def padded(images: Sequence[Tensor]) -> Float[Tensor, "batch 3 height width"]:
    """Images of any size in one tensor, each in the upper left corner of its place."""
    height, width = (max(image.shape[side] for image in images) for side in (1, 2))
    batch = images[0].new_zeros(len(images), 3, height, width)
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return batch


@dataclass(frozen=True)
class Objects:
    """The objects in each image of a batch, whose images may be smaller than its tensor.

    Attributes:
        sizes: Height and width of each image, which lies in the upper left corner of its place.
        boxes: Left, top, right and bottom of each object in pixels, image by image.
        labels: Class of each object, from 0.
        difficult: Objects that VOC calls so: neither to be found nor a mistake if found.
        crowd: Boxes that COCO calls so: regions of many objects, treated likewise.
        areas: Pixels of each object; of its box where nothing better is known.
    """

    sizes: Int[Tensor, "batch 2"]
    boxes: tuple[Float[Tensor, "objects 4"], ...]
    labels: tuple[Int[Tensor, " objects"], ...]
    difficult: tuple[Bool[Tensor, " objects"], ...]
    crowd: tuple[Bool[Tensor, " objects"], ...]
    areas: tuple[Float[Tensor, " objects"], ...]

    def to(self, device: torch.device) -> "Objects":
        """The same on another device."""
        moved = (tuple(x.to(device, non_blocking=True) for x in part) for part in self._parts())
        return Objects(self.sizes.to(device, non_blocking=True), *moved)

    def __getitem__(self, rows: slice | Tensor) -> "Objects":
        chosen = torch.arange(len(self.sizes))[rows].tolist()
        return Objects(
            self.sizes[rows], *(tuple(part[i] for i in chosen) for part in self._parts())
        )

    def _parts(self) -> tuple[tuple[Tensor, ...], ...]:
        return self.boxes, self.labels, self.difficult, self.crowd, self.areas


@dataclass(frozen=True)
class Batch:
    """Some views of some images.

    Attributes:
        images: Values in [0, 1]; every network resizes and normalises for itself.
        labels: Class numbers; `UNLABELLED` (-1) where the class of an image is not known. With
            several classes in an image, a row of 1 (present), 0 (absent) and -1 (not known).
        index: Position of each image in its source.
        view: Number of the augmented version shown of each image.
        mixed: What else is in each image; None if nothing is.
        smoothing: Share of every label that is spread over all classes.
        objects: Boxes in each image; None where no task asks for any.
    """

    images: Float[Tensor, "batch 3 height width"]
    labels: Int[Tensor, "batch ..."]
    index: Int[Tensor, " batch"]
    view: Int[Tensor, " batch"]
    mixed: Mixed | None = None
    smoothing: float = 0.0
    objects: Objects | None = None

    @classmethod
    def of(
        cls,
        images: Tensor | Sequence[Tensor],
        labels: Tensor | Sequence[Mapping[str, Tensor]] | None = None,
    ) -> "Batch":
        """A batch from a user's own loader, where image numbers and views are unknown.

        Args:
            images: With values in [0, 1]; for a detector a list of images of any size.
            labels: Classes; for a detector a target of each image with `boxes` and `labels`, which
                count from 1, as torchvision's detectors take them.

        Raises:
            DataError: The labels are neither.
        """
        if not isinstance(images, Tensor) or not isinstance(labels, Tensor | None):
            return cls._of_targets([*images], [] if labels is None else [*labels])
        rows = torch.arange(len(images), device=images.device)
        known = torch.full_like(rows, UNLABELLED) if labels is None else labels
        return cls(images, known, rows, torch.zeros_like(rows))

    @classmethod
    def _of_targets(cls, images: Sequence[Tensor], targets: Sequence[Any]) -> "Batch":
        if not all(isinstance(each, Mapping) for each in targets):
            raise DataError(
                "Labels are one tensor beside images in one tensor, or for a detector a mapping of "
                f"'boxes' and 'labels' for each image; here the first is {targets[0]!r}."
            )
        boxes = tuple(each["boxes"] for each in targets)
        none = tuple(torch.zeros(len(each), dtype=torch.bool, device=each.device) for each in boxes)
        objects = Objects(
            sizes=torch.tensor([image.shape[1:] for image in images]),
            boxes=boxes,
            labels=tuple(each["labels"] - 1 for each in targets),
            difficult=none,
            crowd=tuple(
                each["iscrowd"].bool() if "iscrowd" in each else x
                for each, x in zip(targets, none, strict=True)
            ),
            areas=tuple((x[:, 2:] - x[:, :2]).prod(1) for x in boxes),
        )
        batch = cls.of(padded(images))
        return replace(batch, objects=objects)

    @property
    def labelled(self) -> Bool[Tensor, " batch"]:
        """Which images have a label, or one label at least."""
        return labelled(self.labels)

    def to(self, device: torch.device, memory_format: torch.memory_format) -> "Batch":
        """The same batch on another device; only the images take the memory format."""
        images = self.images.to(device, non_blocking=True, memory_format=memory_format)
        labels, index, view = (
            x.to(device, non_blocking=True) for x in (self.labels, self.index, self.view)
        )
        mixed = None if self.mixed is None else self.mixed.to(device)
        objects = None if self.objects is None else self.objects.to(device)
        return Batch(images, labels, index, view, mixed, self.smoothing, objects)

    def __getitem__(self, rows: slice | Tensor) -> "Batch":
        """Some of the images."""
        images, labels, index, view = (
            x[rows] for x in (self.images, self.labels, self.index, self.view)
        )
        mixed = None if self.mixed is None else self.mixed[rows]
        objects = None if self.objects is None else self.objects[rows]
        return Batch(images, labels, index, view, mixed, self.smoothing, objects)

    def __len__(self) -> int:
        return len(self.labels)
