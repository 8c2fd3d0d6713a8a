"""What travels from the data to the networks."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

UNLABELLED = -1


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


@dataclass(frozen=True)
class Batch:
    """Some views of some images.

    Attributes:
        images: Values in [0, 1]; every network resizes and normalises for itself.
        labels: Class numbers; `UNLABELLED` (-1) where the class of an image is not known.
        index: Position of each image in its source.
        view: Number of the augmented version shown of each image.
        mixed: What else is in each image; None if nothing is.
        smoothing: Share of every label that is spread over all classes.
    """

    images: Float[Tensor, "batch 3 height width"]
    labels: Int[Tensor, " batch"]
    index: Int[Tensor, " batch"]
    view: Int[Tensor, " batch"]
    mixed: Mixed | None = None
    smoothing: float = 0.0

    @classmethod
    def of(cls, images: Tensor, labels: Tensor | None = None) -> "Batch":
        """A batch from a user's own loader, where image numbers and views are unknown."""
        rows = torch.arange(len(images), device=images.device)
        if labels is None:
            labels = torch.full_like(rows, UNLABELLED)
        return cls(images, labels, rows, torch.zeros_like(rows))

    @property
    def labelled(self) -> Bool[Tensor, " batch"]:
        """Which images have a label."""
        return self.labels != UNLABELLED

    def to(self, device: torch.device, memory_format: torch.memory_format) -> "Batch":
        """The same batch on another device; only the images take the memory format."""
        images = self.images.to(device, non_blocking=True, memory_format=memory_format)
        labels, index, view = (
            x.to(device, non_blocking=True) for x in (self.labels, self.index, self.view)
        )
        mixed = None if self.mixed is None else self.mixed.to(device)
        return Batch(images, labels, index, view, mixed, self.smoothing)

    def __getitem__(self, rows: slice | Tensor) -> "Batch":
        """Some of the images."""
        images, labels, index, view = (
            x[rows] for x in (self.images, self.labels, self.index, self.view)
        )
        mixed = None if self.mixed is None else self.mixed[rows]
        return Batch(images, labels, index, view, mixed, self.smoothing)

    def __len__(self) -> int:
        return len(self.images)
