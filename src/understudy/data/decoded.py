"""Disk cache of decoded images: each is decoded once, by the first process that needs it.

The folder of a cache holds

    manifest.json   what the cache depends on: number and digest of the images, `data.decoded_side`
    sides.npy       height and width of every image as stored, int64, (images, 2)
    images.bin      one record per image: a checksum of 8 bytes, then its pixels, channels last

`images.bin` is a sparse file of its full size from the start, which needs no disk space until it
is written. The pixels of an image are written before its checksum, so that a process killed in
between leaves an image that counts as missing; one that does not fit its checksum is decoded again.
An image that stands in for a faulty one is not stored, since another run may hold it out.
Without `data.decoded_side`, the cache holds exactly
the decoder's output, and training is the same to the bit with and without it.
"""

import logging
import os
import re
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from understudy import files
from understudy.config.json_form import check_form, parse_json
from understudy.data._transforms import resize, resize_target
from understudy.data._workers import in_shared_memory
from understudy.data.source import ChooseCrop, Source, short_digest
from understudy.errors import DataError
from understudy.files import write_at

LOGGER = logging.getLogger("understudy")

_WORD = 8
"""Bytes of a checksum; records are padded to a multiple, so that they can be summed as uint64."""
_Bytes = np.ndarray[Any, np.dtype[np.uint8]]


@final
class DecodedSource(Source):
    """Images of another source, read from a disk cache of decoded images.

    Args:
        source: Source of the images that are not in the cache yet.
        folder: Folder of the cache; created if it does not exist.
        side: Shorter side in pixels to which larger images are reduced; None stores the full size.

    Raises:
        DataError: The folder holds other images (the error names the difference), cannot be
            written, or its disk has no space for all images.
    """

    pixels = None

    def __init__(self, source: Source, folder: Path, *, side: int | None = None) -> None:
        self.source, self.folder, self.side = source, folder, side
        self.classes, self.labels, self.skipped = source.classes, source.labels, source.skipped
        self.split_name = source.split_name
        self.paths, self.contents, self.top = source.paths, source.contents, source.top
        self.shards = source.shards
        self.size = min(source.size, side or source.size) if source.size else None
        if not (folder / "manifest.json").is_file():
            _create(folder, self._manifest, _reduced(source.sides(), side))
        _refuse(folder, self._manifest)
        self._sides: Int64[Tensor, "images 2"] = torch.from_numpy(_read_sides(folder, len(source)))
        self._offsets = _offsets(self._sides).tolist()
        self._bytes = _map(self._file, self._offsets[-1])
        # In shared memory: worker processes start anew in every epoch, and each image should be
        # verified once.
        self._intact = torch.zeros(len(source), dtype=torch.bool)
        in_shared_memory(self._intact)

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a worker process map the file itself: pickled, the map would become a copy."""
        return _open, (self.source, self.folder, self.side)

    def image(self, i: int) -> UInt8[Tensor, "3 height width"]:
        """Return image `i`; decode and store it on first access.

        Raises:
            DataError: The image cannot be decoded or stored, or is damaged in a read-only folder.
        """
        return self.crop(i, lambda height, width: (0, 0, height, width))

    def crop(self, i: int, choose: ChooseCrop) -> UInt8[Tensor, "3 crop_height crop_width"]:
        """Return a crop of image `i`; of a verified image, no more than the crop is read."""
        substitute = None if self._intact[i] else self._ensure_intact(i)
        if substitute is not None:
            top, left, height, width = choose(*substitute.shape[1:])
            return substitute[:, top : top + height, left : left + width]
        height, width = self._sides[i].tolist()
        start = self._offsets[i] + _WORD
        image = self._bytes[start : start + height * width * 3].reshape(height, width, 3)
        top, left, height, width = choose(height, width)
        # A copy: the file is mapped read-only, which a tensor cannot be.
        crop = np.array(image[top : top + height, left : left + width])
        return torch.from_numpy(crop).permute(2, 0, 1)

    def for_evaluation(self) -> Source:
        """Return the same decoded images with the labels of a test split."""
        evaluated = self.source.for_evaluation()
        if evaluated is self.source:
            return self
        return DecodedSource(evaluated, self.folder, side=self.side)

    def within(self, index: Int64[Tensor, " kept"]) -> Source:
        """Return the same images, of which only some may stand in for a faulty one."""
        source = self.source.within(index)
        return self if source is self.source else _open(source, self.folder, self.side)

    def target(self, i: int) -> Any:
        """Return the source's target of image `i`, resized as the stored image."""
        target = self.source.target(i)
        height, width = self._sides[i].tolist()
        return target if self.side is None else resize_target(target, (height, width))

    def sides(self) -> Int64[Tensor, "images 2"]:
        """Return height and width of every image as stored."""
        return self._sides

    def is_replaced(self, i: int) -> bool:
        """Return True if another image stands in for image `i` of the source."""
        return self.source.is_replaced(i)

    def replaced(self) -> tuple[str, ...]:
        """Return the faulty images of the source."""
        return self.source.replaced()

    @cached_property
    def images_digest(self) -> str:
        """The digest of the source, combined with the side to which its images are reduced."""
        digest = self.source.images_digest
        return short_digest(digest, self.side) if self.side else digest

    @property
    def targets_digest(self) -> str:
        """The digest of the source: resized targets follow from the source's and the images."""
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

    def _ensure_intact(self, i: int) -> UInt8[Tensor, "3 height width"] | None:
        """Verify the checksum of image `i`, or decode and store the image if it is missing.

        Returns the image that stands in for a faulty one, which is not stored; else None.
        """
        substitute = None
        start, end = self._offsets[i : i + 2]
        # Not through the map: where the disk is memory (tmpfs), that would give memory to a hole.
        checksum = _read(self._file, start)
        if not checksum.any():
            substitute = self._store(i, start, end)
        elif (checksum != _checksum(self._bytes[start + _WORD : end])).any():
            LOGGER.warning(f"{self._file}: image {i} is not what was stored; it is decoded again.")
            try:
                substitute = self._store(i, start, end)
            except DataError as error:
                raise _damaged(self._file, f"the checksum of image {i} does not match") from error
        self._intact[i] = substitute is None
        return substitute

    def _store(self, i: int, start: int, end: int) -> UInt8[Tensor, "3 height width"] | None:
        """Decode image `i` and store it in the bytes from `start` to `end`; return a substitute."""
        image = self._decoded(i)
        if self.source.is_replaced(i):
            return image
        content = np.zeros(end - start - _WORD, np.uint8)
        content[: image.numel()] = image.permute(1, 2, 0).reshape(-1)
        # Pixels first: a record counts as stored from the moment it has its checksum.
        _write(self._file, start + _WORD, content)
        _write(self._file, start, _checksum(content))
        return None

    def _decoded(self, i: int) -> UInt8[Tensor, "3 height width"]:
        """Decode image `i` and reduce it; a substitute gets the sides that are stored."""
        image, (height, width) = self.source.image(i), self._sides[i].tolist()
        if (self.side and min(image.shape[1:]) > self.side) or self.source.is_replaced(i):
            image = resize(image, (height, width))
        if image.shape != (3, height, width):
            raise DataError(
                f"Image {i} has {image.shape[1]} × {image.shape[2]} pixels, but had {height} × "
                f"{width} when {self.folder} was created: the images have changed. Delete that "
                "folder."
            )
        return image


def _open(source: Source, folder: Path, side: int | None) -> DecodedSource:
    return DecodedSource(source, folder, side=side)


def _reduced(sides: Int64[Tensor, "images 2"], side: int | None) -> Int64[Tensor, "images 2"]:
    """Return heights and widths after images are reduced to a shorter side of at most `side`."""
    if side is None:
        return sides
    shorter = sides.amin(1, keepdim=True)
    smaller = (sides.double() * side / shorter).round().long()
    return torch.where(shorter > side, smaller, sides)


def _offsets(sides: Int64[Tensor, "images 2"]) -> Int64[Tensor, " images_and_one"]:
    """Return the byte at which each record starts, and the end of the last one."""
    words = (3 * sides.prod(1) + 2 * _WORD - 1) // _WORD
    return torch.cat([torch.zeros(1, dtype=torch.int64), (words * _WORD).cumsum(0)])


def _checksum(content: _Bytes) -> _Bytes:
    """Return the sum of all 8-byte words, which changes with any single word.

    A stronger checksum would take longer than crop and resize of the image.
    """
    total = int(content.view(np.uint64).sum())
    # Zeros mean that the image is missing.
    return np.array([total or 1], np.uint64).view(np.uint8)


def _create(folder: Path, manifest: dict[str, Any], sides: Int64[Tensor, "images 2"]) -> None:
    """Create an empty cache.

    It is made in a folder of this process and then renamed, since several processes may create it
    at the same time: the first one wins, and the others use its folder.
    """
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    files.remove_abandoned(folder.parent, rf"\.{re.escape(folder.name)}\.\d+")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        needed, free = int(_offsets(sides)[-1]), shutil.disk_usage(partial).free
        if needed > free:
            raise DataError(
                f"The decoded images need {needed:,} bytes, but the disk of {folder} has {free:,} "
                "free: set data.decoded_side to store smaller images, or data.decoded to another "
                "folder, or leave it out."
            )
        np.save(partial / "sides.npy", sides.numpy())
        with (partial / "images.bin").open("wb") as file:
            file.truncate(needed)
        (partial / "manifest.json").write_text(files.as_json(manifest, indent=1))
        partial.rename(folder)
    except OSError as error:
        if not (folder / "manifest.json").is_file():
            raise _not_written(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _refuse(folder: Path, manifest: dict[str, Any]) -> None:
    """Refuse a cache of other images; the error names the first difference."""
    file, remedy = folder / "manifest.json", f"delete {folder}; training fills it again"
    stored = parse_json(file, remedy=remedy, error=DataError)
    check_form(stored, {str: object}, file, remedy=remedy, error=DataError)
    for key, value in manifest.items():
        if stored.get(key) != value:
            raise DataError(
                f"{folder} holds other decoded images: its {key} is {stored.get(key)}, and that of "
                f"this run is {value}. Delete it, or set data.decoded to another folder."
            )


def _read_sides(folder: Path, images: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    try:
        sides: np.ndarray[Any, np.dtype[np.int64]] = np.load(folder / "sides.npy")
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(folder / "sides.npy", error) from error
    if sides.shape != (images, 2) or sides.dtype != np.int64 or (sides < 1).any():
        raise _damaged(folder / "sides.npy", f"it holds no sides of {images} images")
    return sides


def _map(file: Path, count: int) -> _Bytes:
    """Map the file into memory, so that a crop reads only its own pages.

    Images that other processes write later appear in the map.
    """
    try:
        content: _Bytes = np.memmap(file, np.uint8, mode="r", shape=(count,))
    except (OSError, ValueError) as error:
        raise _damaged(file, error) from error
    # Slices of a plain array are faster than those of np.memmap, which is a subclass.
    return content.view(np.ndarray)


def _read(file: Path, offset: int) -> _Bytes:
    """Read a checksum."""
    try:
        with file.open("rb") as opened:
            opened.seek(offset)
            return np.frombuffer(opened.read(_WORD), np.uint8)
    except OSError as error:
        raise _damaged(file, error) from error


def _write(file: Path, offset: int, content: _Bytes) -> None:
    """Overwrite the bytes at an offset; `DataError` if the disk is full or read-only."""
    try:
        handle = os.open(file, os.O_WRONLY | getattr(os, "O_BINARY", 0))
        try:
            write_at(handle, content.data, offset)
        finally:
            os.close(handle)
    except OSError as error:
        raise _not_written(file.parent, error) from error


def _damaged(file: Path, reason: object) -> DataError:
    return DataError(
        f"{file} is damaged ({reason}): delete {file.parent}; training fills it again."
    )


def _not_written(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"Decoded images cannot be stored in {folder} ({error.strerror}); those already stored are "
        "intact. Free some space, set data.decoded to another folder, or leave it out."
    )
