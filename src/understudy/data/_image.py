"""One image file as a tensor, whatever its mode and orientation."""

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
"""Endings of the file names that are taken for images, in lower case."""
_TURNED = (5, 6, 7, 8)
"""Values of EXIF for a camera that was held upright: height and width change places."""


def decode(file: Path | BytesIO, *, name: str = "") -> UInt8[Tensor, "3 height width"]:
    """The image in a file, upright and in RGB; `name` is what an error calls it.

    The three colours of a pixel lie side by side, as the decoder puts them: for images of
    several hundred pixels a side, to put them apart takes as long as to crop and resize.

    Raises:
        DataError: The file is missing, damaged, cut short, or no image.
    """
    try:
        with Image.open(file) as image:
            return _tensor(image)
    # Damaged files surface as nearly any exception, depending on the decoder that meets them.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{name or file} cannot be read as an image: {reason}") from error


def sides_of(file: Path) -> tuple[int, int]:
    """Height and width that `decode` will find, from the header alone.

    Raises:
        DataError: The file is missing, or no image.
    """
    try:
        with Image.open(file) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
            return image.size if turned else (image.height, image.width)
    except Exception as error:
        raise DataError(f"{file} cannot be read as an image: {error}") from error


def _tensor(image: Image.Image) -> UInt8[Tensor, "3 height width"]:
    array = np.array(_rgb(ImageOps.exif_transpose(image)))
    return torch.from_numpy(array).permute(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    """An image of any mode in RGB; transparent parts become white."""
    if image.mode.startswith("I"):
        # PIL would clip 16-bit values at 255, and most of the image would be white.
        high_byte = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(high_byte.clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
