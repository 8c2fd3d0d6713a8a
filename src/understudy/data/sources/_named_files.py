"""Files that a data set names in its annotations: they must lie inside its folder.

Only a file of annotations that others made would name files elsewhere on this machine.
"""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from understudy.errors import DataError


def is_inside(path: Path, folder: Path) -> bool:
    """Return True for a path below a folder as it is written, or with all links followed."""
    if ".." not in path.parts and path.is_relative_to(folder):
        return True
    written = Path(os.path.normpath(path.absolute()))
    with suppress(OSError, ValueError, RuntimeError):  # a link to itself
        if path.resolve().is_relative_to(folder.resolve()):
            return True
    return written.is_relative_to(os.path.normpath(folder.absolute()))


def is_file(path: Path) -> bool:
    """Return True for a file; False also for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a link to itself; a name with NUL or of thousands of letters
        return False


def named(folder: Path, name: str, root: Path) -> Path | None:
    """Return the path of a file that annotations name; None if it is outside of `root`.

    Args:
        folder: Folder that the name is relative to.
        name: Name of the file, also with the separators of Windows.
        root: Folder of the data set.
    """
    if "\\" in name and not is_file(folder / name):
        name = name.replace("\\", "/")
    if is_plain(name):
        return folder / name
    if re.match(r"[A-Za-z]:/", name) or not is_inside(folder / name, root):
        return None
    return Path(os.path.normpath(folder / name))


def is_plain(name: str) -> bool:
    """Return True for a name that stays below the folder it is relative to, links left aside."""
    # Most names are plain; to follow the links of each would take seconds.
    is_absolute = name.startswith("/") or re.match(r"[A-Za-z]:[/\\]", name)
    return not is_absolute and ".." not in re.split(r"[/\\]", name)


def named_in(folders: Iterable[Path], name: str, root: Path, *, by: str) -> list[Path]:
    """Return the paths that a name can stand for, relative to each of several folders.

    Args:
        folders: Folders that the name may be relative to.
        name: Name of the file.
        root: Folder of the data set.
        by: What names the file, for the error, such as `val.json` or `train.txt, line 3`.

    Raises:
        DataError: Every one of them is outside of `root`.
    """
    paths = [path for folder in folders if (path := named(folder, name, root)) is not None]
    if not paths:
        raise DataError(
            f"{by} names {name!r}, which is outside of the data set's folder {root}; name files by "
            "their paths inside of it, and set data.root to a folder that holds all of them."
        )
    return paths
