"""Atomic writes: a file is either whole or absent."""

import errno
import os
import re
import shutil
from pathlib import Path

from understudy.errors import RecipeError, RunError


def write(path: Path, content: str | bytes) -> None:
    """Replace a file in one step; a crash or a full disk leaves the old content untouched.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    # In the same folder: a file can be renamed in one step only within a disk.
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        _remove(partial)
        raise write_error(error, path, len(data)) from error


def refuse_address(path: str | Path, key: str) -> None:
    """Refuse an address such as `s3://bucket/data`, which would name a local folder `s3:`.

    Args:
        path: What the user gave.
        key: Key or flag under which it was given, for the error.

    Raises:
        RecipeError: It starts with a scheme.
    """
    # `Path` has made one slash of two.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise RecipeError(
            f"{key} is {str(path)!r}, an address, but only folders and files of this machine can "
            "be used: copy or mount it, and give the local path."
        )


def free_bytes(path: Path) -> int:
    """Return the free bytes of the disk on which `path` lies, or would lie."""
    absolute = path.resolve()
    folder = next(parent for parent in (absolute, *absolute.parents) if parent.is_dir())
    return shutil.disk_usage(folder).free


def _remove(partial: Path) -> None:
    try:
        partial.unlink(missing_ok=True)
    except OSError:
        return  # the folder itself is gone or read-only, which the error being raised says


def write_error(error: OSError, path: Path, size: int) -> RunError:
    """Return the error that says why a file of `size` bytes was not written, and what to do."""
    kept = "what was saved before is intact"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(
            f"The disk is full: {path} needs {size / 1e6:.1f} MB; {kept}. "
            "Free some space and continue with --resume."
        )
    return RunError(f"{path} cannot be written ({error.strerror}); {kept}. Choose another --out.")
