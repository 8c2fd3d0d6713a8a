"""Build a source from a list of image files: checked, and in memory if the images are small."""

import os
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from understudy.data.source import FileSource, MemorySource, Source, Unreadable, short_digest
from understudy.data.sources._readable import VERSION, check
from understudy.errors import DataError
from understudy.files import remove_abandoned

SMALL = 64
"""Largest side in pixels of images that are kept in memory."""
IN_MEMORY = 100_000
"""Most images of a split that are kept in memory, where there are too many to decode all."""
MAX_BYTES = 2**30
"""Largest size of all images of a split that are kept in memory."""


def from_files(
    paths: Sequence[Path],
    labels: Int64[Tensor, " images"],
    classes: Sequence[str],
    *,
    root: Path,
    unreadable: Unreadable,
    skipped: Sequence[str] = (),
) -> Source:
    """Return the readable files as a source; small images of one size are read into memory.

    Args:
        paths: Image files, in the order of the source.
        labels: Labels of each image.
        classes: Class names in the order of the labels.
        root: Folder of the data set, in which results of the check are stored.
        unreadable: What to do with files that cannot be decoded.
        skipped: Files that were left out already, each with the reason.

    Raises:
        DataError: No file can be read, or some cannot and `unreadable` is `fail`.
    """
    refuse_skipped(skipped, unreadable)
    checked = check(paths, root, unreadable)
    source = FileSource(
        [paths[i] for i in checked.kept],
        labels[checked.kept],
        classes,
        root=root,
        size=checked.size,
        skipped=(*skipped, *checked.skipped),
        contents=[checked.contents[i] for i in checked.kept],
    )
    return _with_cache(source) if is_small(len(source), source.size) else source


def refuse_skipped(skipped: Sequence[str], unreadable: Unreadable) -> None:
    """Refuse files that were left out, each with the reason, where `unreadable` is `fail`.

    Raises:
        DataError: There are some.
    """
    if skipped and unreadable == "fail":
        raise DataError(
            f"{len(skipped)} files cannot be read, first: {skipped[0]}. Repair or remove them, or "
            "leave them out with data.unreadable=skip."
        )


def in_memory_if_small(source: Source) -> Source:
    """Decode all images into memory if they are small and few; else return the source unchanged."""
    if not is_small(len(source), source.size):
        return source
    return _in_memory(source, _decoded(source))


def is_small(count: int, side: int | None) -> bool:
    """Return True for images that may be kept in memory: squares of one size, small and few."""
    return side is not None and side <= SMALL and count * 3 * side**2 <= MAX_BYTES


def _with_cache(source: FileSource) -> MemorySource:
    """Return the images in memory; decode them once, then read them from one file in the folder."""
    # Named by place and content of every file in order: row i of the file is image i of the source.
    name = short_digest(VERSION, source.images_digest)
    cache = source.root / f".understudy-pixels-{name}.npy"
    remove_abandoned(source.root, r"\.understudy-pixels-\w+-\d+\.npy")
    with suppress(OSError, ValueError, EOFError):
        stored = torch.from_numpy(np.load(cache))
        if stored.dtype == torch.uint8 and stored.shape == _shape(source):
            return _in_memory(source, stored)
    pixels = _decoded(source)
    # In a read-only folder, the images are decoded at every start.
    partial = cache.with_name(f"{cache.stem}-{os.getpid()}.npy")
    try:
        np.save(partial, pixels.numpy())
        partial.replace(cache)
    except OSError:
        with suppress(OSError):
            partial.unlink()
    return _in_memory(source, pixels)


def _shape(source: Source) -> tuple[int, int, int, int]:
    return len(source), 3, source.size or 0, source.size or 0


def _in_memory(source: Source, pixels: UInt8[Tensor, "images 3 side side"]) -> MemorySource:
    return MemorySource(
        pixels,
        source.labels,
        source.classes,
        skipped=source.skipped,
        paths=source.paths,
        contents=source.contents,
    )


def _decoded(source: Source) -> UInt8[Tensor, "images 3 side side"]:
    pixels = torch.empty(_shape(source), dtype=torch.uint8)

    def fill(i: int) -> None:
        pixels[i] = source.image(i)

    # Threads suffice: Pillow releases the interpreter's lock while it decodes.
    with ThreadPool() as pool:
        pool.map(fill, range(len(source)), chunksize=64)
    return pixels
