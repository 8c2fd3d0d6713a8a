"""A batch: images, labels, and objects in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.errors import DataError

UNLABELLED = -1
"""Label of an image, or of one class of it, that is not known."""


def labelled(labels: Int[Tensor, "images ..."]) -> Bool[Tensor, " images"]:
    """Return which images have a label; with several classes, at least one known value."""
    known = labels != UNLABELLED
    return known.any(1) if known.ndim == 2 else known


@dataclass(frozen=True)
class Mixed:
    """Second image that mixup or cutmix blended into each image of a batch.

    Attributes:
        labels: Class of the second image; `UNLABELLED` (-1) where it is not known.
        share: Share λ of the image itself, in [0, 1]; the second image has the share 1 − λ.
    """

    labels: Int[Tensor, " batch"]
    share: Float[Tensor, " batch"]

    def to(self, device: torch.device) -> "Mixed":
        """Copy to a device."""
        labels, share = (x.to(device, non_blocking=True) for x in (self.labels, self.share))
        return Mixed(labels, share)

    def __getitem__(self, rows: slice | Tensor) -> "Mixed":
        return Mixed(self.labels[rows], self.share[rows])


def padded(images: Sequence[Tensor]) -> Float[Tensor, "batch 3 height width"]:
    """Stack images of different sizes, padded with zeros at the right and at the bottom."""
    height, width = (max(image.shape[side] for image in images) for side in (1, 2))
    batch = images[0].new_zeros(len(images), 3, height, width)
    for canvas, image in zip(batch, images, strict=True):
        canvas[:, : image.shape[1], : image.shape[2]] = image
    return batch


@dataclass(frozen=True)
class Objects:
    """Objects in each image of a batch.

    Attributes:
        sizes: Height and width of each image without its padding at the right and at the bottom.
        boxes: Left, top, right and bottom of each object in pixels, image by image.
        labels: Class of each object, from 0.
        difficult: VOC's flag: a detection of such an object counts neither for nor against.
        crowd: COCO's flag: a region of many objects, ignored in the same way.
        areas: Area of each object in pixels; of its box if its mask is not known.
    """

    sizes: Int[Tensor, "batch 2"]
    boxes: tuple[Float[Tensor, "objects 4"], ...]
    labels: tuple[Int[Tensor, " objects"], ...]
    difficult: tuple[Bool[Tensor, " objects"], ...]
    crowd: tuple[Bool[Tensor, " objects"], ...]
    areas: tuple[Float[Tensor, " objects"], ...]

    def to(self, device: torch.device) -> "Objects":
        """Copy to a device."""
        moved = (tuple(x.to(device, non_blocking=True) for x in each) for each in self._fields())
        return Objects(self.sizes.to(device, non_blocking=True), *moved)

    def __getitem__(self, rows: slice | Tensor) -> "Objects":
        chosen = torch.arange(len(self.sizes))[rows].tolist()
        return Objects(
            self.sizes[rows], *(tuple(each[i] for i in chosen) for each in self._fields())
        )

    def as_arrays(self) -> tuple[Any, list[list[Any]]]:
        """Return the same as numpy arrays, which take no shared memory when they are sent."""
        return self.sizes.numpy(), [[x.numpy() for x in each] for each in self._fields()]

    @classmethod
    def of_arrays(cls, sizes: Any, fields: list[list[Any]]) -> "Objects":
        """Return what `as_arrays` was made of."""
        parts = (tuple(torch.from_numpy(x) for x in each) for each in fields)
        return cls(torch.from_numpy(sizes), *parts)

    def _fields(self) -> tuple[tuple[Tensor, ...], ...]:
        return self.boxes, self.labels, self.difficult, self.crowd, self.areas


@dataclass(frozen=True)
class Batch:
    """Augmented views of some images, with their labels.

    Attributes:
        images: Values in [0, 1]; every network resizes and normalises for itself.
        labels: Class numbers; `UNLABELLED` (-1) where the class of an image is not known. With
            several classes in an image, a row of 1 (present), 0 (absent) and -1 (not known).
        index: Position of each image in its source.
        view: Number of each image's augmented view.
        mixed: Images blended into these by mixup or cutmix; None without mixing.
        smoothing: Label smoothing ε, spread evenly over all classes.
        objects: Objects in each image; None unless the task is detection.
        soft: Shares of the classes in each image, which sum to 1, from a loop of the user's own;
            `labels` then hold the class of the largest share. None for one class an image.
    """

    images: Float[Tensor, "batch 3 height width"]
    labels: Int[Tensor, "batch ..."]
    index: Int[Tensor, " batch"]
    view: Int[Tensor, " batch"]
    mixed: Mixed | None = None
    smoothing: float = 0.0
    objects: Objects | None = None
    soft: Float[Tensor, "batch classes"] | None = None

    @classmethod
    def of(
        cls,
        images: Tensor | Sequence[Tensor],
        labels: Tensor | Sequence[Mapping[str, Tensor]] | None = None,
    ) -> "Batch":
        """Build a batch from a user's own loader, where image numbers and views are unknown.

        Args:
            images: Values in [0, 1]; for a detector a list of images of any size.
            labels: Classes; for a detector a target for each image with `boxes` and `labels`
                counted from 1, as torchvision's detectors take them.

        Raises:
            DataError: The labels are neither a tensor nor such targets.
        """
        if not isinstance(images, Tensor) or not isinstance(labels, Tensor | None):
            return cls._of_targets([*images], [] if labels is None else [*labels])
        # Positions in the batch stand for the unknown image numbers.
        rows = torch.arange(len(images), device=images.device)
        known = torch.full_like(rows, UNLABELLED) if labels is None else labels
        return cls(images, known, rows, torch.zeros_like(rows))

    @classmethod
    def _of_targets(cls, images: Sequence[Tensor], targets: Sequence[Any]) -> "Batch":
        _check_targets(images, targets)
        # Classes of torchvision's targets count from 1, as 0 is the background.
        boxes = tuple(_boxes(each["boxes"]) for each in targets)
        unmarked = tuple(
            torch.zeros(len(each), dtype=torch.bool, device=each.device) for each in boxes
        )
        objects = Objects(
            sizes=torch.tensor([image.shape[1:] for image in images]),
            boxes=boxes,
            # `torch.tensor([])`, the labels of no boxes, is of floats.
            labels=tuple(each["labels"].long() - 1 for each in targets),
            difficult=unmarked,
            crowd=tuple(
                each["iscrowd"].bool() if "iscrowd" in each else x
                for each, x in zip(targets, unmarked, strict=True)
            ),
            areas=tuple((x[:, 2:] - x[:, :2]).prod(1) for x in boxes),
        )
        batch = cls.of(padded(images))
        return replace(batch, objects=objects)

    @property
    def labelled(self) -> Bool[Tensor, " batch"]:
        """Which images have a label; with several classes, at least one known value."""
        return labelled(self.labels)

    def to(self, device: torch.device, memory_format: torch.memory_format) -> "Batch":
        """Copy to a device; only the images take the memory format."""
        images = self.images.to(device, non_blocking=True, memory_format=memory_format)
        labels, index, view = (
            x.to(device, non_blocking=True) for x in (self.labels, self.index, self.view)
        )
        mixed = None if self.mixed is None else self.mixed.to(device)
        objects = None if self.objects is None else self.objects.to(device)
        soft = None if self.soft is None else self.soft.to(device, non_blocking=True)
        return Batch(images, labels, index, view, mixed, self.smoothing, objects, soft)

    def __getitem__(self, rows: slice | Tensor) -> "Batch":
        """Select some of the images."""
        images, labels, index, view = (
            x[rows] for x in (self.images, self.labels, self.index, self.view)
        )
        mixed = None if self.mixed is None else self.mixed[rows]
        objects = None if self.objects is None else self.objects[rows]
        soft = None if self.soft is None else self.soft[rows]
        return Batch(images, labels, index, view, mixed, self.smoothing, objects, soft)

    def by_size(self) -> "list[Batch]":
        """Return parts in each of which all images have one size, so that none is padded.

        Images without objects are of one size already.
        """
        if self.objects is None:
            return [self]
        sizes = [tuple(size) for size in self.objects.sizes.tolist()]
        parts = {size: [i for i, other in enumerate(sizes) if other == size] for size in sizes}
        return [self[torch.tensor(rows)] for rows in parts.values()]

    def __len__(self) -> int:
        return len(self.labels)


def _boxes(boxes: Tensor) -> Float[Tensor, "boxes 4"]:
    """Return boxes as floats; `torch.tensor([])` as no boxes."""
    return boxes.float().view(-1, 4) if boxes.ndim == 1 and not len(boxes) else boxes.float()


def _check_targets(images: Sequence[Any], targets: Sequence[Any]) -> None:
    """Refuse images or targets that a detector cannot read.

    Raises:
        DataError: As above.
    """
    others = [each for each in images if not isinstance(each, Tensor)]
    if others:
        raise DataError(
            f"The images hold a {type(others[0]).__name__}, but must be one tensor (batch, "
            "channels, height, width), or for a detector a list of tensors; `torch.from_numpy` "
            "converts arrays."
        )
    if not all(isinstance(each, Mapping) for each in targets):
        first = next(each for each in targets if not isinstance(each, Mapping))
        raise DataError(
            "Labels must be one tensor with one tensor of images, or for a detector a mapping "
            f"with 'boxes' and 'labels' for each image; the first is {first!r}."
        )
    for image in images:
        if not isinstance(image, Tensor) or image.ndim != 3 or not image.is_floating_point():
            kind = type(image).__name__
            if isinstance(image, Tensor):
                kind = f"{str(image.dtype).removeprefix('torch.')} of shape {tuple(image.shape)}"
            raise DataError(
                "Each image of a detector must be a tensor of floats from 0 to 1 of shape "
                f"(3, height, width); one is {kind}."
            )
    if len(targets) != len(images):
        raise DataError(
            f"There are {len(images)} images and {len(targets)} targets: a detector needs for each "
            "image a mapping with 'boxes' and 'labels', both empty where there is no object."
        )
    for target in targets:
        missing = [key for key in ("boxes", "labels") if not isinstance(target.get(key), Tensor)]
        if missing:
            raise DataError(
                f"A target of a detector has no tensor '{missing[0]}': it must have 'boxes' and "
                "'labels' (from 1)."
            )
        boxes = _boxes(target["boxes"])
        if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) != len(target["labels"]):
            raise DataError(
                f"The boxes of an image have the shape {tuple(boxes.shape)} and the labels "
                f"{tuple(target['labels'].shape)}: it must be (boxes, 4), left, top, right and "
                "bottom in pixels, and (boxes,)."
            )
