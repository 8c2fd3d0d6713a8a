"""Pictures in any form, one at a time as RGB: files, folders, patterns, PIL, arrays and tensors.

| form | read as |
|---|---|
| path of a file | what a data source reads: EXIF orientation applied, transparency on white |
| path of a folder | the pictures in it and below it, sorted |
| pattern, such as `shots/*.jpg` | the files and folders of that form, sorted; `**` is any depth |
| PIL image | as from its file |
| numpy array | `(height, width)`, `(height, width, 1, 3 or 4)`, or a batch of the latter |
| tensor | `(height, width)`, `(1, 3 or 4, height, width)`, or a batch of the latter |

Arrays and tensors hold uint8 from 0 to 255 or floats from 0 to 1, which are rounded to 8 bits, as a
file would hold them. Of a file of several pictures (GIF, TIFF) the first is read.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from understudy.data._image import SUFFIXES, decode, frames_in, rgb_tensor, why_not_read
from understudy.data.sources._listing import list_images
from understudy.errors import DataError, RecipeError
from understudy.files import refuse_address

Picture = str | PathLike[str] | Image.Image | np.ndarray[Any, Any] | Tensor
"""A picture, or several of them: see the table of this module."""

_SINGLE = (str, PathLike, Image.Image, np.ndarray, Tensor)
"""The classes of `Picture`."""
_CHANNELS = (1, 3, 4)
"""Numbers of channels of grey, RGB, and RGB with transparency."""
_OVERSHOT = 1e-6
"""Floats may be this much below 0 or above 1, by rounding."""


@dataclass(frozen=True)
class Item:
    """One picture that is not read yet.

    Attributes:
        name: Path of its file, or `picture` and its position.
        content: Its file, or the picture itself; None if there is none.
        problem: Why there is no picture; empty if there is one.
    """

    name: str
    content: Path | Image.Image | np.ndarray[Any, Any] | Tensor | None = None
    problem: str = ""

    def read(self) -> tuple[UInt8[Tensor, "3 height width"], str]:
        """Return the picture, and what is to be said of it; empty if nothing.

        Raises:
            DataError: It cannot be read, or its values do not say which colours they are.
        """
        if isinstance(self.content, Path):
            return self._read_file(self.content)
        if isinstance(self.content, Image.Image):
            return _of_pil(self.content, self.name), ""
        if self.content is None:
            raise DataError(self.problem)
        return _of_pil(Image.fromarray(_eight_bits(self.content, self.name)), self.name), ""

    def _read_file(self, file: Path) -> tuple[UInt8[Tensor, "3 height width"], str]:
        if reason := why_not_read(file.name):
            raise DataError(f"{self.name} {reason}")
        pixels, frames = decode(file, name=self.name), frames_in(file)
        return pixels, f"the first of {frames} pictures in the file" if frames > 1 else ""


def _of_pil(image: Image.Image, name: str) -> UInt8[Tensor, "3 height width"]:
    try:
        return rgb_tensor(image)
    # Pixels are often decoded only when they are asked for, by which nearly anything is raised.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{name} cannot be read as an image: {reason}") from error


def listed(pictures: Picture | Iterable[Picture]) -> Iterator[Item]:
    """Yield every picture, folders and patterns replaced by what they hold, in the order given.

    What names no picture is an item too, with its problem.

    Raises:
        DataError: Something is of a type that is no picture.
    """
    several = [pictures] if isinstance(pictures, _SINGLE) else pictures
    if not isinstance(several, Iterable):
        raise _no_picture(several)
    for position, each in enumerate(several):
        if isinstance(each, str | PathLike):
            yield from _of_path(os.fspath(each))
        elif isinstance(each, np.ndarray | Tensor) and each.ndim == 4:
            for row, single in enumerate(each):
                yield Item(f"picture {position}, row {row}", single)
        elif isinstance(each, Image.Image | np.ndarray | Tensor):
            yield Item(f"picture {position}", each)
        else:
            raise _no_picture(each)


def _no_picture(value: object) -> DataError:
    advice = "give paths, PIL images, numpy arrays or tensors"
    if isinstance(value, bytes | bytearray):
        advice = "give PIL.Image.open(io.BytesIO(content))"
    return DataError(f"A {type(value).__name__} is no picture: {advice}.")


def _of_path(text: str) -> Iterator[Item]:
    """Yield the picture or pictures that a path or pattern names, or one problem."""
    try:
        refuse_address(text, "a picture")
    except RecipeError as error:
        yield Item(text, problem=str(error))
        return
    path = Path(text)
    if path.is_dir():
        yield from _in_folder(path)
    elif path.is_file():
        yield Item(text, path)
    elif path.exists():
        yield Item(
            text,
            problem=f"{text} is a pipe, socket or device, from which no picture is read: save the "
            "picture in a file, or give understudy.load(…).predict the opened PIL image.",
        )
    elif has_magic(text):
        names = sorted(glob(text, recursive=True))  # noqa: PTH207 - pathlib's is of one folder
        if not names:
            yield Item(text, problem=f"No file has a name of the form {text!r}.")
        for name in names:
            yield from _of_path(name)
    else:
        yield Item(text, problem=f"There is no file or folder {text!r}.")


def _in_folder(folder: Path) -> Iterator[Item]:
    listing = list_images(folder, deep=True)
    for file in listing.images:
        yield Item(str(file), file)
    for line in listing.skipped:
        yield Item(str(folder), problem=line)
    if not listing.images and not listing.skipped:
        suffixes = ", ".join(sorted(SUFFIXES))
        yield Item(str(folder), problem=f"The folder {folder} holds no picture: {suffixes}.")


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
