"""Images kept decoded in one file: each is decoded once, by whichever process needs it first.

The folder of a store holds

    manifest.json   what the images are: their number, digest, and the side they are reduced to
    sides.npy       height and width of every image
    images.bin      one record for every image: a checksum, then its pixels, colours side by side

`images.bin` has its full size from the start, as a hole that takes no room. The pixels of an image
are written before its checksum, so that a process killed in between leaves an image that counts
as missing. Without a side, what is kept is what the decoder gave, and training is the same to the
bit with a store and without.
"""

import errno
import json
import os
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from understudy.data._transforms import resized, scaled
from understudy.data.source import Box, Source, short_digest
from understudy.errors import DataError

_WORD = 8
"""Bytes of a checksum; records are filled up to a multiple of it."""
_Bytes = np.ndarray[Any, np.dtype[np.uint8]]


@final
class DecodedSource(Source):
    """The images of another source, kept decoded in a folder.

    Args:
        source: Where an image comes from that is not kept yet.
        folder: Place of the store; made if there is none.
        side: Shorter side in pixels to which larger images are reduced; None keeps them whole.

    Raises:
        DataError: The folder holds other images (the difference is named), cannot be written, or
            its disk has no room for all of them.
    """

    pixels = None

    def __init__(self, source: Source, folder: Path, *, side: int | None = None) -> None:
        self.source, self.folder, self.side = source, folder, side
        self.classes, self.labels, self.skipped = source.classes, source.labels, source.skipped
        self.size = min(source.size, side or source.size) if source.size else None
        if not (folder / "manifest.json").is_file():
            _create(folder, self._manifest, _reduced(source.sides(), side))
        _refuse(folder, self._manifest)
        self._sides: Int64[Tensor, "images 2"] = torch.from_numpy(_sides_in(folder))
        self._offsets = _offsets(self._sides).tolist()
        self._bytes = _mapped(self._file, self._offsets[-1])
        # Shared with worker processes, so that each image is checked once and not once an epoch.
        self._intact = torch.zeros(len(source), dtype=torch.bool)
        self._intact.share_memory_()  # type: ignore[no-untyped-call]

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker process opens the folder anew."""
        return _opened, (self.source, self.folder, self.side)

    def image(self, i: int) -> UInt8[Tensor, "3 height width"]:
        """Image number `i`, decoded and kept if it is met for the first time.

        Raises:
            DataError: It is kept but its bytes are damaged, or cannot be decoded or kept.
        """
        return self.part(i, lambda height, width: (0, 0, height, width))

    def part(self, i: int, choose: Box) -> UInt8[Tensor, "3 part_height part_width"]:
        """A part of image number `i`; no more is read, once the image is known to be intact."""
        if not self._intact[i]:
            self._check(i)
        height, width = self._sides[i].tolist()
        start = self._offsets[i] + _WORD
        image = self._bytes[start : start + height * width * 3].reshape(height, width, 3)
        top, left, height, width = choose(height, width)
        # A copy, since what is mapped from the file cannot be written.
        part = np.array(image[top : top + height, left : left + width])
        return torch.from_numpy(part).permute(2, 0, 1)

    def target(self, i: int) -> Any:
        """What the source knows of image `i`, its boxes as the image is kept."""
        target = self.source.target(i)
        height, width = self._sides[i].tolist()
        return target if self.side is None else scaled(target, (height, width))

    def sides(self) -> Int64[Tensor, "images 2"]:
        """Height and width of every image as it is kept."""
        return self._sides

    @cached_property
    def images_digest(self) -> str:
        """That of the source, unless its images are reduced."""
        whole = self.source.images_digest
        return short_digest(whole, self.side) if self.side else whole

    @property
    def targets_digest(self) -> str:
        """That of the source: boxes follow the images."""
        return self.source.targets_digest

    @property
    def _file(self) -> Path:
        return self.folder / "images.bin"

    @property
    def _manifest(self) -> dict[str, Any]:
        return {
            "number of images": len(self.source),
            "digest of the images": self.source.images_digest,
            "data.decoded_side": self.side,
        }

    def _check(self, i: int) -> None:
        """Image number `i` is kept and intact from now on; `DataError` if it cannot be."""
        start, end = self._offsets[i : i + 2]
        checksum, content = np.split(self._bytes[start:end], [_WORD])
        if not checksum.any():
            _write(self._file, start + _WORD, content := self._decoded(i, end - start - _WORD))
            _write(self._file, start, _checksum(content))
        elif (checksum != _checksum(content)).any():
            raise _damaged(self._file, f"image {i} is not what was stored")
        self._intact[i] = True

    def _decoded(self, i: int, count: int) -> _Bytes:
        """The pixels of image number `i`, with zeros after them up to `count` bytes."""
        image, (height, width) = self.source.image(i), self._sides[i].tolist()
        if self.side and min(image.shape[1:]) > self.side:
            image = resized(image, (height, width))
        if image.shape != (3, height, width):
            raise DataError(
                f"Image {i} has {image.shape[1]} × {image.shape[2]} pixels, and had {height} × "
                f"{width} when {self.folder} was made: the images have changed. Delete that folder."
            )
        content = np.zeros(count, np.uint8)
        content[: image.numel()] = image.permute(1, 2, 0).reshape(-1)
        return content


def _opened(source: Source, folder: Path, side: int | None) -> DecodedSource:
    return DecodedSource(source, folder, side=side)


def _reduced(sides: Int64[Tensor, "images 2"], side: int | None) -> Int64[Tensor, "images 2"]:
    """Height and width of images whose shorter side is at most `side`."""
    if side is None:
        return sides
    shorter = sides.amin(1, keepdim=True)
    smaller = (sides.double() * side / shorter).round().long()
    return torch.where(shorter > side, smaller, sides)


def _offsets(sides: Int64[Tensor, "images 2"]) -> Int64[Tensor, " images_and_one"]:
    """Where the record of every image starts, and where the last ends."""
    words = (3 * sides.prod(1) + 2 * _WORD - 1) // _WORD
    return torch.cat([torch.zeros(1, dtype=torch.int64), (words * _WORD).cumsum(0)])


def _checksum(content: _Bytes) -> _Bytes:
    """Eight bytes that one changed word always changes: the sum of all; never 0, which is missing.

    A stronger one would take longer than to crop and resize the image.
    """
    total = int(content.view(np.uint64).sum())
    return np.array([total or 1], np.uint64).view(np.uint8)


def _create(folder: Path, manifest: dict[str, Any], sides: Int64[Tensor, "images 2"]) -> None:
    """An empty store, made beside its place and moved there: several processes may try at once."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        needed, free = int(_offsets(sides)[-1]), shutil.disk_usage(partial).free
        if needed > free:
            raise DataError(
                f"The decoded images need {needed:,} bytes and the disk of {folder} has {free:,} "
                "free: set data.decoded_side to keep them smaller, name another folder by "
                "data.decoded, or leave it out."
            )
        np.save(partial / "sides.npy", sides.numpy())
        with (partial / "images.bin").open("wb") as file:
            file.truncate(needed)
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=1))
        partial.rename(folder)
    except OSError as error:
        if not (folder / "manifest.json").is_file():
            raise _unwritten(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _refuse(folder: Path, manifest: dict[str, Any]) -> None:
    """Name the first difference between the images a store was made for and those asked for."""
    try:
        stored = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise _damaged(folder / "manifest.json", error) from error
    for key, wanted in manifest.items():
        if stored.get(key) != wanted:
            raise DataError(
                f"{folder} keeps other images, decoded: the {key} is {stored.get(key)} there and "
                f"{wanted} here. Delete it, or name another folder by data.decoded."
            )


def _sides_in(folder: Path) -> np.ndarray[Any, np.dtype[np.int64]]:
    try:
        sides: np.ndarray[Any, np.dtype[np.int64]] = np.load(folder / "sides.npy")
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(folder / "sides.npy", error) from error
    return sides


def _mapped(file: Path, count: int) -> _Bytes:
    try:
        content: _Bytes = np.memmap(file, np.uint8, mode="r", shape=(count,))
    except (OSError, ValueError) as error:
        raise _damaged(file, error) from error
    return content.view(np.ndarray)


def _write(file: Path, offset: int, content: _Bytes) -> None:
    """Replace some bytes in one write; `DataError` if the disk is full or read-only."""
    try:
        handle = os.open(file, os.O_WRONLY)
        try:
            if os.pwrite(handle, content.data, offset) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)
    except OSError as error:
        raise _unwritten(file.parent, error) from error


def _damaged(file: Path, reason: object) -> DataError:
    return DataError(
        f"{file} is damaged ({reason}): delete {file.parent}; it is filled again as training goes "
        "on."
    )


def _unwritten(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"Decoded images cannot be kept in {folder} ({error.strerror}); those kept there are "
        "intact. Free some space, name another folder by data.decoded, or leave it out."
    )
