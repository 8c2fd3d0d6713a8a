"""Faulty images that are found when they are decoded: another one of its class replaces each.

Of many images none is decoded before training, so that their number must not depend on which can be
read. A faulty image is replaced by the next one of its label that can be read, in the order of the
source and from its end to its beginning: a function of the data alone. Whichever process meets one
notes it in a file, by which they are counted at the end of the run and at the next start.
"""

import asyncio
import errno
import json
import logging
from abc import abstractmethod
from contextlib import suppress
from functools import cached_property
from itertools import islice
from multiprocessing.pool import ThreadPool
from os import SEEK_END
from pathlib import Path
from typing import final

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from understudy.data.source import Source
from understudy.errors import DataError

LOGGER = logging.getLogger("understudy")

_TRIES = 100
"""Faulty images in a row after which something else is wrong."""
_LASTING = {None, errno.EACCES, errno.EPERM}
"""Numbers of errors that a file gives each time; others are the disk's, and may not come again."""


class LazySource(Source):
    """Images of which nothing is decoded before it is asked for."""

    pixels = None

    @abstractmethod
    def sides_of(self, i: int) -> tuple[int, int]:
        """Return height and width of image `i` by its header; `DataError` if it has none."""

    @abstractmethod
    def name(self, i: int) -> str:
        """Return what image `i` is called."""

    def sides(self) -> Int64[Tensor, "images 2"]:
        """Return height and width of every image, read from the headers."""
        with ThreadPool() as pool:
            return torch.tensor(pool.map(self.sides_of, range(len(self)), chunksize=64))


@final
class ReplacedSource(Source):
    """Images of a source; another one of its label stands in for each that cannot be decoded."""

    pixels = None

    def __init__(
        self, source: LazySource, notes: Path, allowed: Bool[Tensor, " images"] | None = None
    ) -> None:
        """Wrap a source.

        Args:
            source: Images, of which some may be faulty.
            notes: File in which faulty images are noted, one in a line; it need not exist.
            allowed: True for images that may stand in for others; default: all.
        """
        self.source, self._notes, self._allowed = source, notes, allowed
        self.labels, self.classes, self.size = source.labels, source.classes, source.size
        self.split_name, self.paths, self.top = source.split_name, source.paths, source.top
        self.shards = source.shards
        self._instead, self._noted, self._read_to = dict[int, int](), set[bytes](), 0
        self._before = self.replaced()
        self.skipped = (*source.skipped, *self._before)

    def image(self, i: int) -> UInt8[Tensor, "3 height width"]:
        """Return image `i`, or the one that replaces it.

        Raises:
            DataError: The disk cannot be read, or many images in a row are faulty.
        """
        if i in self._instead:
            return self._in_place_of(i, self.source.image(self._instead[i]))
        try:
            return self.source.image(i)
        except DataError as error:
            if not _lasts(error):
                raise
            self._note(i, str(error))
        for j in islice(self._next(i), _TRIES):
            with suppress(DataError):
                image = self.source.image(j)
                self._instead[i] = j
                return self._in_place_of(i, image)
        raise DataError(
            f"{self.source.name(i)} cannot be read, and neither can the images of its class behind "
            f"it ({_TRIES} were tried): repair or remove them."
        )

    def within(self, index: Int64[Tensor, " kept"]) -> Source:
        """Return the same images, of which only some may stand in for a faulty one."""
        allowed = torch.zeros(len(self), dtype=torch.bool)
        allowed[index] = True
        return ReplacedSource(self.source, self._notes, allowed)

    def sides(self) -> Int64[Tensor, "images 2"]:
        """Return height and width of every image, or of the one that replaces it."""
        with ThreadPool() as pool:
            return torch.tensor(pool.map(self._sides_of, range(len(self)), chunksize=64))

    def is_replaced(self, i: int) -> bool:
        """Return True if another image stood in for image `i` when it was read."""
        return i in self._instead

    def replaced(self) -> tuple[str, ...]:
        """Return the images that were found faulty so far, by any process, each with the reason."""
        notes = dict[str, str]()
        with suppress(OSError):
            for line in self._notes.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError, TypeError, KeyError):
                    note = json.loads(line)
                    if note["changed"] == _changed(note["name"]):
                        notes.setdefault(note["name"], note["reason"])
        return tuple(
            f"{reason}; the next image of its class stands in for it"
            for _, reason in sorted(notes.items())
        )

    @cached_property
    def images_digest(self) -> str:
        """The digest of the source: which image is replaced follows from it."""
        return self.source.images_digest

    def _in_place_of(self, i: int, image: Tensor) -> UInt8[Tensor, "3 height width"]:
        """Return an image in the size of the one that it replaces, if its header tells it."""
        with suppress(DataError):
            sides = self.source.sides_of(i)
            if sides != tuple(image.shape[1:]):
                resized = F.interpolate(image[None].float(), sides, mode="bilinear", antialias=True)
                return resized[0].round().clamp(0, 255).to(torch.uint8)
        return image

    def _sides_of(self, i: int) -> tuple[int, int]:
        try:
            return self.source.sides_of(i)
        except DataError:
            _, height, width = self.image(i).shape
            return height, width

    def _next(self, i: int) -> list[int]:
        """Return the images of the same label behind image `i`, and then those before it."""
        same = self.labels == self.labels[i]
        if same.ndim == 2:
            same = same.all(1)
        if self._allowed is not None:
            same = same & self._allowed
        places = same.nonzero().flatten()
        return torch.cat([places[places > i], places[places < i]]).tolist()

    def _note(self, i: int, reason: str) -> None:
        """Append a faulty image to the notes, in one write; say so where that is impossible.

        One that is in them already, by whatever process, is not noted again.
        """
        name = self.source.name(i)
        note = {"name": name, "changed": _changed(name), "reason": reason}
        line = json.dumps(note).encode() + b"\n"
        if self._is_noted(line):
            return
        try:
            self._notes.parent.mkdir(parents=True, exist_ok=True)
            with self._notes.open("ab", buffering=0) as file:
                file.write(line)
        except OSError:
            LOGGER.warning(f"{reason}; the next image of its class stands in for it.")

    def _is_noted(self, line: bytes) -> bool:
        """Return True if a line is in the notes, of which only what is new is read."""
        with suppress(OSError), self._notes.open("rb") as file:
            if file.seek(0, SEEK_END) < self._read_to:  # begun anew
                self._noted, self._read_to = set(), 0
            file.seek(self._read_to)
            lines = [each for each in file.read().splitlines(keepends=True) if each[-1:] == b"\n"]
            self._noted.update(lines)
            self._read_to += sum(map(len, lines))
        return line in self._noted


def _changed(name: str) -> int:
    """Return when a file was changed, by which one that was repaired is known; 0 for no file."""
    with suppress(OSError, ValueError):
        return Path(name).stat().st_mtime_ns
    return 0


def _lasts(error: DataError) -> bool:
    """Return True for a fault of the image, and not of the disk."""
    cause = error.__cause__
    # Of a network, and without a number. Before Python 3.11, asyncio has its own TimeoutError.
    if isinstance(cause, TimeoutError | asyncio.TimeoutError | ConnectionError):
        return False
    return not isinstance(cause, OSError) or cause.errno in _LASTING


def found_since(source: Source) -> tuple[str, ...]:
    """Return the images of a source that were found faulty since it was read."""
    return tuple(line for line in source.replaced() if line not in source.skipped)
