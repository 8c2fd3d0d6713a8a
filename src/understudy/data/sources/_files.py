"""From a list of image files to a source: checked, and in memory if the images are small."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from understudy.data.source import FileSource, MemorySource, Source
from understudy.data.sources._readable import Checked, check

SMALL = 64
"""Largest side in pixels of images that are kept in memory."""
_MOST_BYTES = 2**30


def from_files(
    paths: Sequence[Path],
    labels: Int64[Tensor, " images"],
    classes: Sequence[str],
    *,
    root: Path,
    unreadable: Literal["skip", "fail"],
) -> Source:
    """The readable ones of some image files; small images of one size are read into memory.

    Raises:
        DataError: No file can be read, or some cannot and `unreadable` is `fail`.
    """
    checked = check(paths, root, unreadable)
    source = FileSource(
        [paths[i] for i in checked.kept],
        labels[checked.kept],
        classes,
        root=root,
        size=checked.size,
        skipped=checked.skipped,
    )
    return _kept(source, checked) if fits(len(source), checked.size) else source


def fits(images: int, size: int | None) -> bool:
    """Whether images of this size are small enough, and few enough, to be kept in memory."""
    return size is not None and size <= SMALL and images * 3 * size**2 <= _MOST_BYTES


def in_memory(source: Source) -> MemorySource:
    """The same images, all decoded; they must be squares of one size."""
    return _with_pixels(source, _decoded(source))


def _kept(source: FileSource, checked: Checked) -> MemorySource:
    """The images in memory, decoded once and then read from one file beside them."""
    stamp = json.dumps(checked.record, sort_keys=True)
    name = sha256(stamp.encode()).hexdigest()[:16]
    cache = source.root / f".understudy-pixels-{name}.npy"
    with suppress(OSError, ValueError):
        return _with_pixels(source, torch.from_numpy(np.load(cache)))
    pixels = _decoded(source)
    with suppress(OSError):
        partial = cache.with_name(f"{cache.stem}-{os.getpid()}.npy")
        np.save(partial, pixels.numpy())
        partial.replace(cache)
    return _with_pixels(source, pixels)


def _with_pixels(source: Source, pixels: UInt8[Tensor, "images 3 side side"]) -> MemorySource:
    return MemorySource(pixels, source.labels, source.classes, skipped=source.skipped)


def _decoded(source: Source) -> UInt8[Tensor, "images 3 side side"]:
    pixels = torch.empty(len(source), 3, source.size or 0, source.size or 0, dtype=torch.uint8)

    def fill(i: int) -> None:
        pixels[i] = source.image(i)

    with ThreadPool() as pool:
        pool.map(fill, range(len(source)), chunksize=64)
    return pixels
