"""Transforms of single images: those of torchvision, with a faster random resized crop.

The names and attributes of the classes here are part of `Views.description`, which stored teacher
outputs are compared by.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

from understudy.config.image_size import Size, of_sides, sides
from understudy.data.source import Source
from understudy.errors import DataError

Augment = Literal["none", "flip", "crop_flip", "resized_crop", "squash_flip", "scale_jitter"]
PAD = 4
"""Margin in pixels of `crop_flip`."""
_GREY = (124, 116, 104)
"""Padding colour: the mean of ImageNet, which is zero after a network's normalisation."""
_MARGIN = 256 / 224
"""Resize before the centre crop: timm and torchvision resize to 256 and crop 224 pixels."""


def clean(size: Size, *, native: Size | None, augment: Augment = "none") -> v2.Transform:
    """Return the transform of evaluation: resize by Pillow and centre crop, nothing random.

    Args:
        size: Size of the result in pixels.
        native: Size of the images if all have the same; images of the right size are not cropped.
        augment: Augmentation in training; with `squash_flip`, evaluation squashes too.
    """
    return _whole(PillowResize, size, native=native, augment=augment)


def clean_resize(size: Size, *, native: Size | None, augment: Augment) -> tuple[Size, bool]:
    """Return to which size evaluation resizes images, and whether to both sides (squashed).

    Otherwise one number is the shorter side, and height and width are covered by the image. The
    arguments are those of `clean`.
    """
    if augment == "squash_flip":
        return size, True
    if native == size:
        return size, False
    if isinstance(size, int):
        return round(size * _MARGIN), False
    # Rounded down, as timm's transform does where height and width differ.
    height, width = (256 * side // 224 for side in size)
    return of_sides(height, width), False


def covering(size: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Return the sides to which an image is resized to cover a size, its proportions kept.

    Computed as in timm's `ResizeKeepRatio`, so that its transform gives the same image.
    """
    ratio = min(height / size[0], width / size[1])
    return round(height / ratio), round(width / ratio)


def _whole(
    resize: type[v2.Resize], size: Size, *, native: Size | None, augment: Augment
) -> v2.Transform:
    """Return the transform of evaluation, with a resize of this class."""
    resized, squash = clean_resize(size, native=native, augment=augment)
    if squash:
        return resize(sides(resized), antialias=True)
    if isinstance(resized, int):
        return v2.Compose([resize(resized, antialias=True), v2.CenterCrop(size)])
    return v2.Compose([Cover(resized, resize), v2.CenterCrop(size)])


def augmented(
    augment: Augment, size: Size, *, native: Size | None, jitter: float
) -> list[v2.Transform]:
    """Return the transforms of training, in order; the colour jitter comes last.

    Args:
        augment: Name of the augmentation.
        size: Side of the result in pixels.
        native: Size of the images if all have the same.
        jitter: Strength of the colour jitter; 0 leaves it out.

    Raises:
        DataError: The jitter is negative, or the augmentation is only for images with boxes.
    """
    # By torch, which is faster than Pillow.
    whole = _whole(v2.Resize, size, native=native, augment=augment)
    mirror = v2.RandomHorizontalFlip()
    steps: dict[Augment, list[v2.Transform]] = {
        "none": [whole],
        "flip": [whole, mirror],
        "squash_flip": [whole, mirror],
        "crop_flip": [whole, v2.RandomCrop(size, padding=PAD), mirror],
        "resized_crop": [_random_crop(size), mirror],
    }
    return select(steps, augment) + colour_jitter(jitter)


def _random_crop(size: Size) -> "RandomResizedCrop":
    """Return the random resized crop; its proportions vary about those of the result."""
    if isinstance(size, int):
        return RandomResizedCrop(size, antialias=True)
    narrow, wide = (ratio * size[1] / size[0] for ratio in (3 / 4, 4 / 3))
    return RandomResizedCrop(size, ratio=(narrow, wide), antialias=True)


def select(steps: Mapping[Augment, list[v2.Transform]], augment: Augment) -> list[v2.Transform]:
    """Return the transforms of one augmentation; `DataError` if these images cannot have it."""
    if augment not in steps:
        raise DataError(
            f"data.augment is {augment}, which does not work for these images; "
            f"use one of: {', '.join(steps)}."
        )
    return steps[augment]


def colour_jitter(strength: float) -> list[v2.Transform]:
    """Return a random change of brightness, contrast and saturation; no transform at strength 0."""
    if strength < 0:
        raise DataError(f"data.jitter is {strength}; a strength must be 0 or above.")
    jitter = v2.ColorJitter(brightness=strength, contrast=strength, saturation=strength)
    return [jitter] if strength else []


@final
class PillowResize(v2.Resize):  # type: ignore[misc]
    """Torchvision's resize, with uint8 images resized by Pillow, bilinear.

    Programs that use a student elsewhere open images by Pillow and resize them there. torch rounds
    differently, and on some processors than on others: single pixels differ by 1 of 255.
    """

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize one part of a sample; boxes and masks as torchvision does."""
        is_image = isinstance(inpt, tv_tensors.Image) or type(inpt) is Tensor
        if not is_image or inpt.dtype != torch.uint8 or self._fits(inpt):
            return super().transform(inpt, params)
        pixels = np.ascontiguousarray(inpt.permute(1, 2, 0).as_subclass(Tensor).numpy())
        resized = np.array(super().transform(Image.fromarray(pixels), params))
        return tv_tensors.wrap(torch.from_numpy(resized).permute(2, 0, 1), like=inpt)

    def _fits(self, image: Tensor) -> bool:
        """Return True if the image has the right size."""
        height, width = image.shape[-2:]
        return self.size in ([min(height, width)], [height, width])


@final
class Cover(v2.Transform):  # type: ignore[misc]
    """Resize of an image so that it covers a height and a width, its proportions kept.

    Args:
        size: Height and width to cover.
        resize: Class of the resize.
    """

    def __init__(self, size: tuple[int, int], resize: type[v2.Resize]) -> None:
        super().__init__()
        self.size, self.by, self._resize = size, resize.__name__, resize

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Return the resize of the first input, which is the image."""
        height, width = v2.functional.get_size(flat_inputs[0])
        return {"resize": self._resize(covering(self.size, height, width), antialias=True)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize one part of a sample."""
        return params["resize"].transform(inpt, {})


@final
class RandomResizedCrop(v2.RandomResizedCrop):  # type: ignore[misc]
    """Torchvision's random resized crop, which can also read just the crop from a source."""

    def of(self, source: Source, i: int) -> UInt8[Tensor, "3 size size"]:
        """Return a random resized crop of image `i`, equal to the transform of the whole image."""
        return resize(source.crop(i, self.choose), self.size)

    def choose(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Draw top, left, height and width of a random crop of an image of this size."""
        # make_params reads nothing but the shape: a tensor on "meta" has no memory.
        drawn = self.make_params([torch.empty(3, height, width, device="meta")])
        return drawn["top"], drawn["left"], drawn["height"], drawn["width"]


@final
class ScaleJitter(v2.Transform):  # type: ignore[misc]
    """Large-scale jitter of an image with objects: resize, then crop or pad to the original size.

    Objects that fall outside the crop are dropped from every entry of the target.
    """

    def __init__(self, *, scales: tuple[float, float] = (0.1, 2.0)) -> None:
        """Jitter in the given range of scales; the default is that of Ghiasi et al. (2021)."""
        super().__init__()
        self.scales = scales

    def forward(self, image: tv_tensors.Image, target: dict[str, Any]) -> Any:
        """Return the jittered image and its target; random numbers come from torch's generator."""
        height, width = image.shape[-2:]
        # At least two pixels of a very small image have to remain.
        least, most = (max(scale, 2 / min(height, width)) for scale in self.scales)
        steps = [
            v2.ScaleJitter((width, height), (least, most)),
            v2.RandomCrop((height, width), pad_if_needed=True, fill=_GREY),
            _sanitised(),
        ]
        return transform_pair(v2.Compose(steps), image, target)


@final
class MovedTogether:
    """Transforms that move an image and its boxes, in order; objects that leave it are dropped.

    Args:
        steps: Transforms of an image and its target.
    """

    def __init__(self, steps: Sequence[Callable[..., Any]]) -> None:
        self.steps = list(steps)

    def __call__(self, image: tv_tensors.Image, target: dict[str, Any]) -> Any:
        """Return the transformed image and its target."""
        return transform_pair(self._moved, image, target) if self.steps else (image, target)

    def _moved(self, image: tv_tensors.Image, target: dict[str, Any]) -> Any:
        before = target["boxes"]
        for step in self.steps:
            image, target = step(image, target)
        if before.shape == target["boxes"].shape and torch.equal(before, target["boxes"]):
            return image, target
        return v2.Compose([v2.ClampBoundingBoxes(), _sanitised()])(image, target)


def _sanitised() -> v2.Transform:
    """Return the transform that drops objects of which less than a pixel is left."""
    return v2.SanitizeBoundingBoxes(labels_getter=_columns)


def _columns(pair: tuple[Any, dict[str, Any]]) -> list[Tensor]:
    """Return all entries of a target but the boxes: dropping a box drops its row in each."""
    return [value for name, value in pair[1].items() if name != "boxes"]


def transform_pair(transform: Callable[..., Any], image: Tensor, target: dict[str, Any]) -> Any:
    """Transform an image and its target; areas of objects scale with the areas of their boxes.

    Cropping is assumed to remove the same share of an object and of its box.
    """
    # As shares of their boxes, areas go through the transform unchanged.
    share = target["areas"] / _box_areas(target["boxes"])
    image, target = transform(image, target | {"areas": share})
    return image, target | {"areas": target["areas"] * _box_areas(target["boxes"])}


def resize_target(target: Any, size: tuple[int, int]) -> Any:
    """Return the target of an image that was resized to height and width `size`."""
    if not isinstance(target, dict) or "boxes" not in target:
        return target
    # Without an image, torchvision would resize whatever tensor it meets first.
    return transform_pair(v2.Resize(size), tv_tensors.Image(torch.empty(1, 1, 1)), target)[1]


def _box_areas(boxes: Tensor) -> Float[Tensor, " objects"]:
    left, top, right, bottom = boxes.as_subclass(Tensor).unbind(1)
    return (right - left) * (bottom - top)


def resize(
    image: UInt8[Tensor, "3 height width"], size: tuple[int, int]
) -> UInt8[Tensor, "3 new_height new_width"]:
    """Resize an image with antialiasing, to the bit as torchvision does.

    PyTorch resizes uint8 images fastest in the channels-last layout.
    """
    packed = image[None].contiguous(memory_format=torch.channels_last)
    return F.interpolate(packed, size, mode="bilinear", antialias=True)[0]
