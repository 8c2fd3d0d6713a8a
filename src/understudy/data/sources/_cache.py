"""Files that are made once for data and kept in the user's cache: by one process, for all others.

They lie in `UNDERSTUDY_CACHE`, or else in `understudy` below the user's folder for caches
(`XDG_CACHE_HOME`, by default `~/.cache`), since the folder of the data may be read-only, and
writing into it would change it. Where that folder cannot be written, every process makes its own,
and a warning says so.
"""

import logging
import os
import tempfile
from atexit import register
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from shutil import rmtree

from understudy import files, locks
from understudy.data.sources._columns import Columns
from understudy.files import cache_folder

LOGGER = logging.getLogger("understudy")

__all__ = ["NOTES", "cache_folder", "made_once", "opened"]

NOTES = "faulty.jsonl"
"""Name of the notes of faulty images, which lie beside the columns."""


def opened(folder: Path, name: str, is_current: Callable[[Columns], bool]) -> Columns | None:
    """Return the stored columns of this name; None if there are none, or others than today's."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        columns = Columns(folder / name)
        if is_current(columns):
            return columns
    return None


def made_once(
    folder: Path,
    name: str,
    is_current: Callable[[Columns], bool],
    make: Callable[[Path], bool],
) -> Columns | None:
    """Return stored columns; one process makes them if they are missing, the others wait for it.

    None if they are not to be stored.

    Args:
        folder: Their folder in the user's cache.
        name: Name of the file in it.
        is_current: True for columns that need not be made anew.
        make: Writes the columns into the file it is given; returns False if none are to be stored.
    """
    if (columns := opened(folder, name, is_current)) is not None:
        return columns
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locks.locked(folder):
            files.sweep(folder)
            if (columns := opened(folder, name, is_current)) is not None:
                return columns
            return Columns(folder / name) if make(folder / name) else None
    except OSError as error:
        LOGGER.warning(
            f"{folder} cannot be written ({error.strerror}), so that every process makes {name} "
            "for itself at each start: set UNDERSTUDY_CACHE to a folder that can be written."
        )
        own = _own_folder() / folder.name / name
        own.parent.mkdir(exist_ok=True)
        return Columns(own) if make(own) else None


@cache
def _own_folder() -> Path:
    """Return a folder of this process, which is deleted when it ends."""
    folder, owner = Path(tempfile.mkdtemp(prefix="understudy-")), os.getpid()

    @register
    def delete() -> None:
        if os.getpid() == owner:  # not a fork of it
            rmtree(folder, ignore_errors=True)

    return folder
