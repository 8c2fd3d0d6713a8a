"""What is done to images shown one by one: the transforms of torchvision, the slow one faster."""

from collections.abc import Mapping
from typing import Literal, final

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from understudy.data.source import Source
from understudy.errors import DataError

Augment = Literal["none", "flip", "crop_flip", "resized_crop", "squash_flip", "scale_jitter"]
PAD = 4
"""Margin in pixels of `crop_flip`."""
# timm and torchvision resize to 256 before they cut 224 pixels.
_MARGIN = 256 / 224


def clean(size: int, *, native: int | None, augment: Augment = "none") -> v2.Transform:
    """An image as evaluation shows it; whole if it has the right size by nature, or is squashed."""
    if augment == "squash_flip":
        return v2.Resize((size, size), antialias=True)
    shorter = size if native == size else round(size * _MARGIN)
    return v2.Compose([v2.Resize(shorter, antialias=True), v2.CenterCrop(size)])


def augmented(
    augment: Augment, size: int, *, native: int | None, jitter: float
) -> list[v2.Transform]:
    """What is done to an image in training; colours change last, by the strength `jitter`.

    Raises:
        DataError: The strength is negative, or only images with boxes are augmented so.
    """
    whole, mirror = clean(size, native=native, augment=augment), v2.RandomHorizontalFlip()
    steps: dict[Augment, list[v2.Transform]] = {
        "none": [whole],
        "flip": [whole, mirror],
        "squash_flip": [whole, mirror],
        "crop_flip": [whole, v2.RandomCrop(size, padding=PAD), mirror],
        "resized_crop": [RandomResizedCrop(size, antialias=True), mirror],
    }
    return chosen(steps, augment) + colour(jitter)


def chosen(steps: Mapping[Augment, list[v2.Transform]], augment: Augment) -> list[v2.Transform]:
    """The steps of one way to augment; `DataError` if the images cannot be augmented so."""
    if augment not in steps:
        raise DataError(
            f"data.augment is {augment}, which these images cannot be shown with; "
            f"they can with: {', '.join(steps)}."
        )
    return steps[augment]


def colour(jitter: float) -> list[v2.Transform]:
    """A random change of brightness, contrast and saturation; none at strength 0."""
    if jitter < 0:
        raise DataError(f"data.jitter is {jitter}, but a strength is 0 or above.")
    change = v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter)
    return [change] if jitter else []


@final
class RandomResizedCrop(v2.RandomResizedCrop):  # type: ignore[misc]
    """Torchvision's, which can also read no more of an image than it shows."""

    def of(self, source: Source, i: int) -> UInt8[Tensor, "3 size size"]:
        """What it shows of image number `i`."""
        return resized(source.part(i, self.box), self.size)

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of a random part of an image of this size."""
        drawn = self.make_params([torch.empty(3, height, width, device="meta")])
        return drawn["top"], drawn["left"], drawn["height"], drawn["width"]


def resized(
    image: UInt8[Tensor, "3 height width"], size: tuple[int, int]
) -> UInt8[Tensor, "3 new_height new_width"]:
    """An image of another size, smoothed where it shrinks; to the bit as torchvision does it.

    PyTorch resizes uint8 images fastest if the colours of a pixel lie side by side.
    """
    packed = image[None].contiguous(memory_format=torch.channels_last)
    return F.interpolate(packed, size, mode="bilinear", antialias=True)[0]
