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
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from understudy.data._given_images import as_rgb
from understudy.data._image import SUFFIXES, decode, frames_in, why_not_read
from understudy.data.sources._listing import list_images
from understudy.errors import DataError, RecipeError
from understudy.files import refuse_address

Picture = str | PathLike[str] | Image.Image | np.ndarray[Any, Any] | Tensor
"""A picture, or several of them: see the table of this module."""

_SINGLE = (str, PathLike, Image.Image, np.ndarray, Tensor)
"""The classes of `Picture`."""


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
        if self.content is None:
            raise DataError(self.problem)
        return as_rgb(self.content, self.name), ""

    def _read_file(self, file: Path) -> tuple[UInt8[Tensor, "3 height width"], str]:
        if reason := why_not_read(file.name):
            raise DataError(f"{self.name} {reason}")
        pixels, frames = decode(file, name=self.name), frames_in(file)
        return pixels, f"the first of {frames} pictures in the file" if frames > 1 else ""


def listed(pictures: Picture | Iterable[Picture]) -> Iterator[Item]:
    """Yield every picture, folders and patterns replaced by what they hold, in the order given.

    What names no picture is an item too, with its problem.

    Raises:
        DataError: Something is of a type that is no picture.
    """
    several = [pictures] if isinstance(pictures, (*_SINGLE, bytes, bytearray)) else pictures
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
    if not text:
        yield Item(text, problem="An empty name is no picture; the present folder is '.'.")
        return
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
        names = _matching(text)
        if not names:
            bracket = " For a [ in a name write [[]." if "[" in text else ""
            yield Item(text, problem=f"No file has a name of the form {text!r}.{bracket}")
        for name in names:
            yield from _of_path(name)
    else:
        yield Item(text, problem=f"There is no file or folder {text!r}.")


def _matching(pattern: str) -> list[str]:
    """Return the files and folders of a pattern, sorted, and nothing that lies in one of these.

    Of several ways to one file the shortest counts: `**` names a folder beside all that is in it,
    and goes through links to folders again and again.
    """
    names = sorted(glob(pattern, recursive=True), key=len)  # noqa: PTH207 - pathlib's is of one folder
    places = {parent: parent.resolve() for parent in {Path(name).parent for name in names}}
    ways: dict[Path, str] = {}
    for name in names:
        ways.setdefault(places[Path(name).parent] / Path(name).name, name)
    folders = {place for place, name in ways.items() if Path(name).is_dir()}
    return sorted(x for place, x in ways.items() if folders.isdisjoint(place.parents))


def _in_folder(folder: Path) -> Iterator[Item]:
    listing = list_images(folder, deep=True)
    for file in listing.images:
        yield Item(str(file), file)
    for line in listing.skipped:
        yield Item(str(folder), problem=line)
    if not listing.images and not listing.skipped:
        suffixes = ", ".join(sorted(SUFFIXES))
        yield Item(str(folder), problem=f"The folder {folder} holds no picture: {suffixes}.")
