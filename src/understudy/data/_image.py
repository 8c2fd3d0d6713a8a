"""Decode one image file to an RGB tensor, whatever its mode and EXIF orientation."""

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from understudy.errors import DataError

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm"}
    | {".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Lower-case suffixes of the files that count as images."""
_TRANSPOSED = (5, 6, 7, 8)
"""EXIF orientations that turn the stored image by 90°, which swaps height and width."""


def decode(file: Path | BytesIO, *, name: str = "") -> UInt8[Tensor, "3 height width"]:
    """Decode an image to RGB, with its EXIF orientation applied.

    The tensor is a channels-last view, the decoder's own layout: for images of several hundred
    pixels a side, a copy to planes takes as long as the crop and resize that follow.

    Args:
        file: Image file, or its content.
        name: Name of the image in errors; default: `file`.

    Raises:
        DataError: The file is missing, damaged, truncated, or not an image.
    """
    try:
        with Image.open(file) as image:
            return _tensor(image)
    # Damaged files surface as nearly any exception, depending on the decoder that meets them.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{name or file} cannot be read as an image: {reason}") from error


def sides_of(file: Path) -> tuple[int, int]:
    """Return height and width of the image that `decode` returns, from the file's header alone.

    Raises:
        DataError: The file is missing, or not an image.
    """
    try:
        with Image.open(file) as image:
            transposed = image.getexif().get(ExifTags.Base.Orientation) in _TRANSPOSED
            return image.size if transposed else (image.height, image.width)
    except Exception as error:
        raise DataError(f"{file} cannot be read as an image: {error}") from error


def _tensor(image: Image.Image) -> UInt8[Tensor, "3 height width"]:
    # A camera stores the sensor's rows and notes in EXIF how it was held.
    array = np.array(_rgb(ImageOps.exif_transpose(image)))
    return torch.from_numpy(array).permute(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB; transparent pixels become white."""
    if image.mode.startswith("I"):
        # PIL would clip 16-bit values at 255, and most of the image would be white.
        high_byte = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(high_byte.clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
