"""Atomic writes and locks: a file is either whole or absent, and a directory has one writer."""

import errno
import json
import logging
import math
import os
import re
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from understudy.errors import Busy, RecipeError, RunError, UnderstudyError, suggestion

LOGGER = logging.getLogger("understudy")

CONTINUE = "continue with --resume"
"""Advice about what stopped, where its directory is not known."""

_LOCK, _OWNER = ".lock", ".lock.json"
"""Empty file that is locked, and file that says which process locked it."""

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""Errors of a file system that has no locks."""

PARTIAL = ".partial"
"""End of the names of files and folders that are not whole yet, which `sweep` removes."""

_WRITTEN = 600.0
"""Seconds without a change after which nobody writes a partial file any more."""

_ORPHANS_END = 15.0
"""Seconds in which the workers of a process that was killed notice it and end."""


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


@contextmanager
def modules_in(*folders: str) -> Iterator[None]:
    """Let a user's own modules be imported from some folders meanwhile, after all other places.

    A file `rich.py` in one of them does not take the place of the package of that name.
    """
    added = [folder for folder in folders if folder not in sys.path]
    sys.path.extend(added)
    try:
        yield
    finally:
        for folder in added:
            sys.path.remove(folder)


def import_function(path: Path, function: str, *, raising: type[UnderstudyError]) -> Any:
    """Import a user's Python file, which executes it, and return one of its functions.

    Args:
        path: The file.
        function: Name of the function.
        raising: Class of the errors.

    Raises:
        UnderstudyError: There is no such file or function, or the file cannot be imported.
    """
    name = f"{path}:{function}"
    spec = spec_from_file_location(path.stem, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        seen = "" if path.is_absolute() else f" as seen from the present folder {Path.cwd()}"
        raise raising(f"There is no Python file {str(path)!r}{seen}, asked for by {name!r}.")
    module = module_from_spec(spec)
    try:
        with modules_in("", str(path.parent)):
            spec.loader.exec_module(module)
    except Exception as error:
        raise raising(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, function, None)):
        raise raising(f"{path} has no function {function!r}{suggestion(function, vars(module))}.")
    return getattr(module, function)


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


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep other processes from writing a directory; create it if it does not exist.

    The system lets go of the lock when the process ends, however it ends. It holds between the
    machines of a shared folder too, if they lock over the network, as NFS does; where the file
    system has no locks, a warning says so.

    Raises:
        RunError: Another process writes the directory, or it cannot be written.
    """
    lock = FileLock(folder / _LOCK)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _unless_impossible(folder):
            _acquire(lock, folder)
    except OSError as error:
        raise write_error(error, folder / _LOCK, 0, again="start again") from error
    try:
        _sign(folder)
        for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
            sweep(place)
        yield
    finally:
        _leave(folder, made=made)
        lock.release()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process is in such a block with the same folder, which exists.

    Raises:
        OSError: The folder is read-only, or gone.
    """
    lock = FileLock(folder / _LOCK)
    with _unless_impossible(folder):
        lock.acquire(poll_interval=0.002)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _unless_impossible(folder: Path) -> Iterator[None]:
    """Go on without a lock where the file system has none, and say so."""
    try:
        yield
    except (OSError, NotImplementedError) as error:
        # Older versions of filelock say that a lock is not implemented.
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        LOGGER.warning(
            f"The disk of {folder} has no locks ({error}): take care that no other process writes "
            "that directory."
        )


def _acquire(lock: FileLock, folder: Path) -> None:
    try:
        # A process that was killed may leave workers behind for some seconds, which hold its lock.
        lock.acquire(timeout=_ORPHANS_END if _owner_is_dead(folder) else 0)
    except Timeout as error:
        raise Busy(
            f"{folder} is being written by {_owner_in_words(folder)}: wait until it has ended, or "
            "choose another --out."
        ) from error


def _sign(folder: Path) -> None:
    owner = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    with suppress(OSError):  # a full disk is met again at the first write, which says so
        (folder / _OWNER).write_text(json.dumps(owner), encoding="utf-8")


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


def _leave(folder: Path, *, made: Sequence[Path]) -> None:
    """Remove the name of this process, and the folders made for it if nothing was written there."""
    with suppress(OSError):
        (folder / _OWNER).unlink(missing_ok=True)
        if all(path.name == _LOCK for path in folder.iterdir()):
            (folder / _LOCK).unlink(missing_ok=True)
            for path in made:
                path.rmdir()


def _owner(folder: Path) -> dict[str, object]:
    with suppress(OSError, ValueError):
        owner = json.loads((folder / _OWNER).read_text(encoding="utf-8"))
        if isinstance(owner, dict):
            return owner
    return {}


def _owner_is_dead(folder: Path) -> bool:
    owner = _owner(folder)
    # Elsewhere than under POSIX, this call would end a process that lives.
    if os.name != "posix" or owner.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(str(owner.get("pid"))), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return False


def _owner_in_words(folder: Path) -> str:
    owner = _owner(folder)
    if not owner:
        return "another process"
    return (
        f"process {owner.get('pid')} on {owner.get('host')} (since {owner.get('since')}: "
        f"`{owner.get('command')}`)"
    )
