"""One image file as a tensor, whatever its mode and orientation."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from understudy.errors import DataError

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm"}
    | {".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Endings of the file names that are taken for images, in lower case."""


def decode(path: Path) -> UInt8[Tensor, "3 height width"]:
    """The image in a file, upright and in RGB.

    Raises:
        DataError: The file is missing, damaged, cut short, or no image.
    """
    try:
        with Image.open(path) as image:
            return tensor(image)
    # Damaged files surface as nearly any exception, depending on the decoder that meets them.
    except Exception as error:
        raise DataError(
            f"{path} cannot be read as an image: {error or type(error).__name__}"
        ) from error


def tensor(image: Image.Image) -> UInt8[Tensor, "3 height width"]:
    """A PIL image of any mode, upright and in RGB, transparent parts on white."""
    array = np.array(_rgb(ImageOps.exif_transpose(image)))
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # PIL would clip 16-bit values at 255 and turn most of the image white.
        image = Image.fromarray(
            (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
