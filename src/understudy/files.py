"""Atomic writes: a file is either whole or absent."""

import errno
import json
import math
import os
import re
import shlex
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from understudy.errors import RecipeError, RunError

CONTINUE = "continue with --resume"
"""Advice about what stopped, where its directory is not known."""

PARTIAL = ".partial"
"""End of the names of files and folders that are not whole yet, which `sweep` removes."""

_WRITTEN = 600.0
"""Seconds without a change after which nobody writes a partial file any more."""


def cache_folder() -> Path:
    """Return the folder for the caches of this user, which may not exist yet."""
    if chosen := os.environ.get("UNDERSTUDY_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "understudy"


def write(path: Path, content: str | bytes, *, key: str = "--out", again: str = CONTINUE) -> None:
    """Replace a file in one step; a crash or a full disk leaves the old content untouched.

    Args:
        path: The file.
        content: What it holds from then on.
        key: Key or flag by which the user chose the folder, for the error.
        again: What to do once there is space, for the error.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    # In the same folder: a file can be renamed in one step only within a disk. Of this process:
    # two reports on one directory may be written at once.
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        _remove(partial)
        raise write_error(error, path, len(data), key=key, again=again) from error


def to_continue(folder: Path) -> str:
    """Return the advice to continue what stopped in a directory, with the command that does it."""
    return f"continue with `understudy --resume {shlex.quote(str(folder))}`"


def continued_by(message: str, folder: Path) -> str:
    """Return a message with its advice about a single run put in terms of a directory of several.

    >>> continued_by(f"Stopped: {to_continue(Path('runs/a/kd/seed0'))}.", Path("runs/a"))
    'Stopped: continue with `understudy --resume runs/a`.'
    """
    return re.sub(
        f"{CONTINUE}|continue with `understudy --resume [^`]*`",
        lambda _: to_continue(folder),
        message,
    )


def write_at(file: int, content: memoryview, offset: int) -> None:
    """Overwrite the bytes at an offset of an open file.

    Raises:
        OSError: The disk is full or read-only.
    """
    while content:
        if hasattr(os, "pwrite"):
            count = os.pwrite(file, content, offset)
        else:
            os.lseek(file, offset, os.SEEK_SET)
            count = os.write(file, content)
        if count == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        content, offset = content[count:], offset + count


def allocate(path: Path, size: int) -> None:
    """Extend a file by zeros that have their place on the disk, so that a map of it can be read.

    A hole that is read through a map gets memory only then where the disk is memory (tmpfs), and if
    none is left the process ends by SIGBUS.

    Raises:
        OSError: The disk is full or read-only.
    """
    with path.open("ab") as file:
        start = file.tell()
        if size <= start:
            return
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), start, size - start)
            return
        zeros = bytes(2**20)
        for left in range(size - start, 0, -len(zeros)):
            file.write(zeros[: min(left, len(zeros))])


def as_json(content: Any, *, indent: int | None = None) -> str:
    """Return content as JSON; a number that is NaN or infinite, which JSON does not have, is null.

    All JSON files are written by this function, so that a value that cannot be computed, such as a
    cosine to a zero vector, reads as missing everywhere.

    >>> as_json({"kl": float("nan"), "top1": 50.0})
    '{"kl": null, "top1": 50.0}'
    """
    return json.dumps(_finite(content), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(x) for key, x in value.items()}
    return [_finite(x) for x in value] if isinstance(value, list | tuple) else value


def refuse_address(path: str | Path, key: str) -> None:
    """Refuse an address such as `s3://bucket/data`, and what no file can be called.

    The address would name a local folder `s3:`.

    Args:
        path: What the user gave.
        key: Key or flag under which it was given, for the error.

    Raises:
        RecipeError: It starts with a scheme, is too long, or holds a character of code 0.
    """
    if "\0" in str(path) or any(len(os.fsencode(part)) > 255 for part in Path(path).parts):
        raise RecipeError(
            f"{key} is {str(path)[:60]!r}…, which no file can be called: at most 255 bytes between "
            "two slashes, none of them of code 0."
        )
    # `Path` has made one slash of two.
    if scheme := re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        address = f"{scheme[0]}/{str(path)[scheme.end() :].lstrip('/')}"
        raise RecipeError(
            f"{key} is {address!r}, an address, but only folders and files of this machine can "
            "be used: copy or mount it, and give the local path."
        )


def free_bytes(path: Path) -> int:
    """Return the free bytes of the disk on which `path` lies, or would lie."""
    absolute = path.resolve()
    folder = next(parent for parent in (absolute, *absolute.parents) if parent.is_dir())
    return shutil.disk_usage(folder).free


def _remove(partial: Path) -> None:
    with suppress(OSError):  # a folder that is gone or read-only: the error being raised says so
        partial.unlink(missing_ok=True)


def write_error(
    error: OSError, path: Path, size: int, *, key: str = "--out", again: str = CONTINUE
) -> RunError:
    """Return the error that says why a file of `size` bytes was not written, and what to do."""
    kept = "what was saved before is intact"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(
            f"The disk is full: {path} needs {size / 1e6:.1f} MB; {kept}. "
            f"Free some space and {again}."
        )
    return RunError(f"{path} cannot be written ({error.strerror}); {kept}. Choose another {key}.")


def sweep(folder: Path) -> None:
    """Remove the partial files and folders that processes which were killed have left in a folder.

    Nobody else may write there meanwhile.
    """
    for partial in folder.glob(f".*{PARTIAL}"):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            _remove(partial)


def remove_abandoned(folder: Path, pattern: str) -> None:
    """Remove partial files and folders of processes that were killed before they renamed them.

    Others may write in the folder meanwhile, perhaps on another machine: what has changed within
    the last `_WRITTEN` seconds stays. Whoever loses a partial file all the same makes no cache.

    Args:
        folder: Where they are; it may be missing or read-only.
        pattern: Regular expression of their whole names, which no other file has.
    """
    with suppress(OSError):
        for partial in [path for path in folder.iterdir() if re.fullmatch(pattern, path.name)]:
            parts = [partial, *(partial.iterdir() if partial.is_dir() else ())]
            if time.time() - max(part.stat().st_mtime for part in parts) > _WRITTEN:
                shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
