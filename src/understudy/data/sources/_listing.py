"""Find the image files in a folder, and say which files and links were left out."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from understudy.data._image import SUFFIXES, why_not_read

_IGNORED = frozenset({"__MACOSX", "__pycache__", "@eaDir"})
"""Folders that programs put beside images; those that start with a dot are ignored too."""


@dataclass
class Listing:
    """Image files in a folder, sorted, and what was left out, each with the reason."""

    images: list[Path] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def is_hidden(name: str) -> bool:
    """Return True for files and folders that belong to the system or to a program."""
    return name.startswith(".") or name in _IGNORED


def list_images(folder: Path, *, deep: bool) -> Listing:
    """List the images in a folder, and with `deep` in those below it, linked ones included."""
    listing = Listing()
    real = folder.resolve()
    above = {str(real), *map(str, real.parents)} if deep else None
    for entry in _files(folder, above, listing.skipped):
        name = entry.name.lower()
        if name.endswith(tuple(SUFFIXES)):
            listing.images.append(Path(entry.path))
        elif reason := why_not_read(name):
            listing.skipped.append(f"{entry.path} {reason}")
    listing.images.sort()
    return listing


def _files(
    folder: Path | str, above: set[str] | None, skipped: list[str]
) -> Iterator[os.DirEntry[str]]:
    """Yield the visible files in a folder, and below it if `above` holds the folders above.

    Several times faster than `Path.glob`: `os.scandir` tells files from folders without a further
    call for each.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if _is_file(entry):
                yield entry
            elif entry.is_symlink() and not _is_folder(entry):
                skipped.append(f"{entry.path} is a link to itself or to nothing")
            elif above is not None and entry.is_dir():
                yield from _below(entry, above, skipped)


def _below(
    entry: os.DirEntry[str], above: set[str], skipped: list[str]
) -> Iterator[os.DirEntry[str]]:
    """Yield the files in a folder and below it; a link to a folder above it is left out."""
    target = os.path.realpath(entry.path) if entry.is_symlink() else ""
    if target in above:
        skipped.append(f"{entry.path} is a link to a folder that contains it")
        return
    yield from _files(entry.path, above | {target or os.path.realpath(entry.path)}, skipped)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False
