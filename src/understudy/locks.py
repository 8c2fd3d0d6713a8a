"""Locks of directories: a directory has one writer."""

import errno
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from understudy.errors import Busy
from understudy.files import as_json, sweep, write_error

LOGGER = logging.getLogger("understudy")

_LOCK, _OWNER = ".lock", ".lock.json"
"""Empty file that is locked, and file that says which process locked it."""

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""Errors of a file system that has no locks."""

_ORPHANS_END = 15.0
"""Seconds in which the workers of a process that was killed notice it and end."""


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
        (folder / _OWNER).write_text(as_json(owner), encoding="utf-8")


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
