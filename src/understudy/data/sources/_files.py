"""Build a source from a list of image files: checked, and in memory if the images are small."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from understudy.data.source import FileSource, MemorySource, Source, Unreadable
from understudy.data.sources._readable import Checked, check

SMALL = 64
"""Largest side in pixels of images that are kept in memory."""
_MAX_BYTES = 2**30


def from_files(
    paths: Sequence[Path],
    labels: Int64[Tensor, " images"],
    classes: Sequence[str],
    *,
    root: Path,
    unreadable: Unreadable,
) -> Source:
    """Return the readable files as a source; small images of one size are read into memory.

    Args:
        paths: Image files, in the order of the source.
        labels: Labels of each image.
        classes: Class names in the order of the labels.
        root: Folder of the data set, in which results of the check are stored.
        unreadable: What to do with files that cannot be decoded.

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
    return _with_cache(source, checked) if _is_small(source) else source


def in_memory_if_small(source: Source) -> Source:
    """Decode all images into memory if they are small and few; else return the source unchanged."""
    return _in_memory(source, _decoded(source)) if _is_small(source) else source


def _is_small(source: Source) -> bool:
    size = source.size
    return size is not None and size <= SMALL and len(source) * 3 * size**2 <= _MAX_BYTES


def _with_cache(source: FileSource, checked: Checked) -> MemorySource:
    """Return the images in memory; decode them once, then read them from one file in the folder."""
    # The name holds size and time of change of every file: any change makes another cache.
    stamp = json.dumps(checked.record, sort_keys=True)
    name = sha256(stamp.encode()).hexdigest()[:16]
    cache = source.root / f".understudy-pixels-{name}.npy"
    with suppress(OSError, ValueError):
        return _in_memory(source, torch.from_numpy(np.load(cache)))
    pixels = _decoded(source)
    # In a read-only folder, the images are decoded at every start.
    with suppress(OSError):
        partial = cache.with_name(f"{cache.stem}-{os.getpid()}.npy")
        np.save(partial, pixels.numpy())
        partial.replace(cache)
    return _in_memory(source, pixels)


def _in_memory(source: Source, pixels: UInt8[Tensor, "images 3 side side"]) -> MemorySource:
    return MemorySource(pixels, source.labels, source.classes, skipped=source.skipped)


def _decoded(source: Source) -> UInt8[Tensor, "images 3 side side"]:
    pixels = torch.empty(len(source), 3, source.size or 0, source.size or 0, dtype=torch.uint8)

    def fill(i: int) -> None:
        pixels[i] = source.image(i)

    # Threads suffice: Pillow releases the interpreter's lock while it decodes.
    with ThreadPool() as pool:
        pool.map(fill, range(len(source)), chunksize=64)
    return pixels
