"""What is done to images shown one by one: the transforms of torchvision, the slow one faster."""

from typing import Any, Literal, final

import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

from understudy.errors import DataError

Augment = Literal["none", "flip", "crop_flip", "resized_crop"]
PAD = 4
"""Margin in pixels of `crop_flip`."""
# timm and torchvision resize to 256 before they cut 224 pixels.
_MARGIN = 256 / 224


def clean(size: int, *, native: int | None) -> v2.Transform:
    """An image as evaluation shows it; whole if it has the right size by nature."""
    shorter = size if native == size else round(size * _MARGIN)
    return v2.Compose([v2.Resize(shorter, antialias=True), v2.CenterCrop(size)])


def augmented(augment: Augment, size: int, *, native: int | None, jitter: float) -> v2.Transform:
    """An image as training shows it; colours change after the crop, by the strength `jitter`.

    Raises:
        DataError: The strength is negative.
    """
    if jitter < 0:
        raise DataError(f"data.jitter is {jitter}, but a strength is 0 or above.")
    whole, mirror = clean(size, native=native), v2.RandomHorizontalFlip()
    steps: dict[Augment, list[nn.Module]] = {
        "none": [whole],
        "flip": [whole, mirror],
        "crop_flip": [whole, v2.RandomCrop(size, padding=PAD), mirror],
        "resized_crop": [RandomResizedCrop(size, antialias=True), mirror],
    }
    colour = [v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter)]
    return v2.Compose([*steps[augment], *(colour if jitter else [])])


@final
class RandomResizedCrop(v2.RandomResizedCrop):  # type: ignore[misc]
    """Torchvision's, to the bit, but uint8 images keep their colours side by side in memory.

    That is how image files are decoded and how PyTorch resizes uint8 images fastest.
    """

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crop and resize an image; anything else is left to torchvision."""
        if type(inpt) not in (Tensor, tv_tensors.Image) or inpt.dtype != torch.uint8:
            return super().transform(inpt, params)
        top, left, height, width = (params[key] for key in ("top", "left", "height", "width"))
        part = inpt.as_subclass(Tensor)[:, top : top + height, left : left + width]
        return tv_tensors.wrap(resized(part, self.size), like=inpt)


def resized(
    image: UInt8[Tensor, "3 height width"], size: list[int] | tuple[int, int]
) -> UInt8[Tensor, "3 new_height new_width"]:
    """An image of another size, smoothed where it shrinks."""
    packed = image[None].contiguous(memory_format=torch.channels_last)
    return F.interpolate(packed, tuple(size), mode="bilinear", antialias=True)[0]
