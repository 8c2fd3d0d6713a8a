"""Decode one image file to an RGB tensor, whatever its mode and EXIF orientation.

Numbers of more than eight bits become 0 to 255 by the first range that holds the whole image:

| pixels | range → white |
|---|---|
| whole numbers | 0…255, 0…4095 (12 bits), 0…65535 |
| fractions | 0…1, 0…255, 0…4095, 0…65535 |

Other numbers (negative, larger, not finite) have no known white, and are refused. So are fractions
of which the largest is just above 1: white may be 1, and a filter has overshot it. Colours of 16
bits are read as such. `measured` tells range and largest number as well: by them a data set whose
images come out dark, or by several ranges, is warned of.
"""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from understudy.errors import DataError

_HEIF = frozenset({".heic", ".heif"})
SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm"}
    | {".png", ".ppm", ".tif", ".tiff", ".webp"}
    | (_HEIF if find_spec("pillow_heif") else set())
)
"""Lower-case suffixes of the files that count as images; those of phones if they can be read."""
_OTHERS = frozenset(
    {".arw", ".cr2", ".cr3", ".dcm", ".dng", ".exr", ".hdr", ".j2k", ".jp2", ".jxl", ".nef"}
    | {".orf", ".pbm", ".pcx", ".psd", ".raf", ".rw2", ".svg", ".tga"}
)
"""Lower-case suffixes of images that are not read, which is said of each."""
_SEVERAL = frozenset({".avif", ".gif", ".png", ".tif", ".tiff", ".webp"})
"""Lower-case suffixes of files that may hold several images, such as an animation."""
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF", "AVIF", "HEIF")
"""Formats that are opened. PIL knows others, some of which start programs on a file's content."""
_OVERSHOT = 2
"""Fractions up to here may have overshot a white of 1."""
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
    return measured(file, name=name)[0]


def measured(
    file: Path | BytesIO, *, name: str = ""
) -> tuple[UInt8[Tensor, "3 height width"], tuple[int, int]]:
    """Decode an image as `decode` does; return bits and largest number too of one of many bits.

    Returns:
        The image, and in how many bits a number above eight bits was read, with the largest number
        of the file; (0, 0) of an image of eight bits, or of fractions.

    Raises:
        DataError: As for `decode`.
    """
    try:
        with Image.open(file, formats=_formats()) as image:
            deep_colours = ";16" in str(image.tile[0][3]) if image.tile else False
            tensor = rgb_tensor(image)
            return tensor, _depth(image, tensor, deep_colours=deep_colours)
    except UnidentifiedImageError as error:
        reason = f"its content is none of {', '.join(_formats())}"
        raise DataError(f"{name or file} cannot be read as an image: {reason}") from error
    # Damaged files surface as nearly any exception, depending on the decoder that meets them.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{name or file} cannot be read as an image: {reason}") from error


def frames_in(file: Path) -> int:
    """Return the number of images in a file, of which `decode` reads the first; 1 if unreadable."""
    if file.suffix.lower() not in _SEVERAL:
        return 1
    try:
        with Image.open(file, formats=_formats()) as image:
            return getattr(image, "n_frames", 1)
    except Exception:
        return 1


def sides_of(file: Path | BytesIO) -> tuple[int, int]:
    """Return height and width of the image that `decode` returns, from the file's header alone.

    Raises:
        DataError: The file is missing, or not an image.
    """
    try:
        with Image.open(file, formats=_formats()) as image:
            return image.size if _is_transposed(image) else (image.height, image.width)
    except Exception as error:
        name = file if isinstance(file, Path) else "An image"
        raise DataError(f"{name} cannot be read as an image: {error}") from error


def is_turned(file: Path) -> bool:
    """Return True for an image that EXIF turns by 90°; False also if it cannot be read."""
    try:
        with Image.open(file, formats=_formats()) as image:
            return _is_transposed(image)
    except Exception:
        return False


def _is_transposed(image: Image.Image) -> bool:
    return image.getexif().get(ExifTags.Base.Orientation) in _TRANSPOSED


def why_not_read(name: str) -> str:
    """Return why an image of this file name is not read; "" if it is, or is no image."""
    suffix = Path(name).suffix.lower()
    if suffix in _HEIF and suffix not in SUFFIXES:
        return "needs the package pillow-heif: pip install it"
    return "is in a format that is not read: save it as PNG or JPEG" if suffix in _OTHERS else ""


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats that are opened and that this installation can read."""
    if _HEIF <= SUFFIXES:
        import_module("pillow_heif").register_heif_opener()
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _depth(image: Image.Image, tensor: Tensor, *, deep_colours: bool) -> tuple[int, int]:
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        fractions = values.dtype.kind == "f" and values.max() <= 1
        return (0, 0) if fractions else (_bits(values), int(values.max()))
    # PIL keeps the upper eight of the sixteen bits.
    return (16, int(tensor.max()) << 8 | 255) if deep_colours else (0, 0)


def rgb_tensor(image: Image.Image) -> UInt8[Tensor, "3 height width"]:
    """Return an opened image as RGB, with its EXIF orientation applied, on white if transparent.

    Raises:
        DataError: Its values have no known white.
    """
    # A camera stores the sensor's rows and notes in EXIF how it was held.
    array = np.array(_rgb(ImageOps.exif_transpose(image)))
    return torch.from_numpy(array).permute(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB; transparent pixels become white."""
    if image.mode == "F" or image.mode.startswith("I"):
        # PIL would clip the values at 255, and most of the image would be white.
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _eight_bits(values: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return grey values of another range as 0 to 255; see the table of this module."""
    low, high = float(values.min()), float(values.max())
    overshot = 1 < high < _OVERSHOT and not high.is_integer()
    if overshot or not (low >= 0 and high < 2**16):  # also true of NaN
        raise DataError(
            f"its {values.dtype.name} values run from {low:g} to {high:g}, for which white is not "
            "known; save it with 8 or 16 bits"
        )
    if values.dtype.kind == "f" and high <= 1:
        return np.asarray((values * 255).round(), dtype=np.uint8)
    whole = values.round().astype(np.int64) if values.dtype.kind == "f" else values.astype(np.int64)
    return (whole >> (_bits(values) - 8)).clip(0, 255).astype(np.uint8)


def _bits(values: np.ndarray[Any, Any]) -> int:
    """Return how many bits the range of grey values above 1 has."""
    largest = float(values.max())
    return next((bits for bits in (8, 12) if round(largest) < 2**bits), 16)
