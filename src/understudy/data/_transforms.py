"""What is done to images shown one by one: the transforms of torchvision, the slow one faster."""

from collections.abc import Mapping
from typing import Any, Literal, final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

from understudy.data.source import Source
from understudy.errors import DataError

Augment = Literal["none", "flip", "crop_flip", "resized_crop", "squash_flip", "scale_jitter"]
PAD = 4
"""Margin in pixels of `crop_flip`."""
_GREY = (124, 116, 104)
"""What an image is padded with: the mean of ImageNet, which networks see as zero."""
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


@final
class ScaleJitter(v2.Transform):  # type: ignore[misc]
    """Large-scale jitter of an image with objects, cut or padded to its own size at random.

    Objects that fall out of it are dropped with all that is said of them.
    """

    def __init__(self, *, scales: tuple[float, float] = (0.1, 2.0)) -> None:
        """A jitter in the range of Ghiasi et al. (2021)."""
        super().__init__()
        self.scales = scales

    def forward(self, image: tv_tensors.Image, target: dict[str, Any]) -> Any:
        """The image and its target, from torch's generator."""
        height, width = image.shape[-2:]
        # Of an image of few pixels, something has to be left.
        least, most = (max(scale, 2 / min(height, width)) for scale in self.scales)
        steps = [
            v2.ScaleJitter((width, height), (least, most)),
            v2.RandomCrop((height, width), pad_if_needed=True, fill=_GREY),
            v2.SanitizeBoundingBoxes(labels_getter=_columns),
        ]
        return moved(v2.Compose(steps), image, target)


def _columns(shown: tuple[Any, dict[str, Any]]) -> list[Tensor]:
    """What a target says of each object, beside its box."""
    return [value for name, value in shown[1].items() if name != "boxes"]


def moved(transform: v2.Transform, image: Tensor, target: dict[str, Any]) -> Any:
    """An image and its target after a transform; areas of objects change as those of their boxes.

    An image cut at its border takes the same share of an object and of its box.
    """
    share = target["areas"] / _extent(target["boxes"])
    image, target = transform(image, target | {"areas": share})
    return image, target | {"areas": target["areas"] * _extent(target["boxes"])}


def scaled(target: Any, size: tuple[int, int]) -> Any:
    """What is known of an image, when that has height and width `size`."""
    if not isinstance(target, dict) or "boxes" not in target:
        return target
    # Without an image, torchvision would resize whatever tensor it meets first.
    return moved(v2.Resize(size), tv_tensors.Image(torch.empty(1, 1, 1)), target)[1]


def _extent(boxes: Tensor) -> Float[Tensor, " objects"]:
    left, top, right, bottom = boxes.as_subclass(Tensor).unbind(1)
    return (right - left) * (bottom - top)


def resized(
    image: UInt8[Tensor, "3 height width"], size: tuple[int, int]
) -> UInt8[Tensor, "3 new_height new_width"]:
    """An image of another size, smoothed where it shrinks; to the bit as torchvision does it.

    PyTorch resizes uint8 images fastest if the colours of a pixel lie side by side.
    """
    packed = image[None].contiguous(memory_format=torch.channels_last)
    return F.interpolate(packed, size, mode="bilinear", antialias=True)[0]
