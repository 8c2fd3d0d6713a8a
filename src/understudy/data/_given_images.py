"""Images that a program gives, as RGB: PIL images, numpy arrays and tensors.

| form | read as |
|---|---|
| PIL image | as from its file: EXIF orientation applied, transparency on white |
| numpy array | `(height, width)`, or `(height, width, 1, 3 or 4)` |
| tensor | `(height, width)`, or `(1, 3 or 4, height, width)` |

Arrays and tensors hold uint8 from 0 to 255 or floats from 0 to 1, which are rounded to 8 bits, as a
file would hold them.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from understudy.data._image import rgb_tensor
from understudy.errors import DataError

Given = Image.Image | np.ndarray[Any, Any] | Tensor
"""An image: see the table of this module."""

_CHANNELS = (1, 3, 4)
"""Numbers of channels of grey, RGB, and RGB with transparency."""
_OVERSHOT = 1e-6
"""Floats may be this much below 0 or above 1, by rounding."""


def as_rgb(image: Given, name: str) -> UInt8[Tensor, "3 height width"]:
    """Return an image as RGB.

    Args:
        image: The image.
        name: What errors call it.

    Raises:
        DataError: It cannot be decoded, or its form or its values do not say which picture it is.
    """
    if isinstance(image, Image.Image):
        return _of_pil(image, name)
    return _of_pil(Image.fromarray(_eight_bits(image, name)), name)


def _of_pil(image: Image.Image, name: str) -> UInt8[Tensor, "3 height width"]:
    try:
        return rgb_tensor(image)
    # Pixels are often decoded only when they are asked for, by which nearly anything is raised.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{name} cannot be read as an image: {reason}") from error


def _eight_bits(
    values: np.ndarray[Any, Any] | Tensor, name: str
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return an array or tensor as uint8, with its channels last, or without if it is grey.

    Raises:
        DataError: Its form or its values do not say which picture it is.
    """
    array = _channels_last(values, name)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise DataError(
            f"{name} is of {array.dtype}, and its white is not known: give uint8 from 0 to 255, "
            "or floats from 0 to 1."
        )
    low, high = float(array.min()), float(array.max())
    if not (low >= -_OVERSHOT and high <= 1 + _OVERSHOT):  # also true of NaN
        raise DataError(
            f"The floats of {name} run from {low:g} to {high:g}, but must from 0 to 1: divide "
            "those up to 255 by 255, and give pictures before they are normalised."
        )
    return np.asarray((array.clip(0, 1) * 255).round(), dtype=np.uint8)


def _channels_last(values: np.ndarray[Any, Any] | Tensor, name: str) -> np.ndarray[Any, Any]:
    """Return `(height, width)` or `(height, width, 3 or 4)`.

    Raises:
        DataError: The shape is none of a picture, or could be two.
    """
    is_array = isinstance(values, np.ndarray)
    _check_shape(tuple(values.shape), name, "array" if is_array else "tensor")
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
        array: np.ndarray[Any, Any] = values.numpy()
        array = array if array.ndim == 2 else array.transpose(1, 2, 0)
    else:
        array = values
    single = array.ndim == 3 and array.shape[2] == 1
    return np.ascontiguousarray(array[:, :, 0] if single else array)


def _check_shape(shape: tuple[int, ...], name: str, kind: str) -> None:
    last = kind == "array"
    expected = "(height, width, 3)" if last else "(3, height, width)"
    if len(shape) not in (2, 3) or not all(shape):
        raise DataError(f"{name} has the shape {shape}, which is no picture: give {expected}.")
    if len(shape) == 2:
        return
    ends = (shape[2] in _CHANNELS, shape[0] in _CHANNELS)
    at_its_place, turned = ends if last else ends[::-1]
    what = f"{name} is {'an' if last else 'a'} {kind} of shape {shape}"
    if at_its_place and turned:
        raise DataError(
            f"{what}, in which the first or the last axis could be that of the channels: give "
            "PIL.Image.fromarray(array), with the channels last."
        )
    if not at_its_place:
        call = ".transpose(1, 2, 0)" if last else ".permute(2, 0, 1)"
        advice = f"give {kind}{call}" if turned else f"give {expected}"
        raise DataError(f"{what}, not {expected}: {advice}.")
