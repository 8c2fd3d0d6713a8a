"""Claims on records that a process is about to compute, so that no other computes them too."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

import numpy as np

from understudy import locks
from understudy.bank._row_file import RowNumbers

# POSIX alone has it.
fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None


@final
class Claims:
    """Claims of this process on rows of one bank.

    Each is a lock on one byte of an empty file, whose position is the number of the row. The system
    lets go of it when the process ends, however it ends. Where bytes cannot be locked, one process
    at a time claims rows.

    Args:
        path: The file, in a directory that exists.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, -1

    @contextmanager
    def claimed(self, rows: RowNumbers) -> Iterator[None]:
        """Wait until no other process has a claim on any of some rows, and claim them."""
        if fcntl is None:
            with _whole(self._path):
                yield
            return
        try:
            # In one order for all processes: none waits for a row while others wait for its own.
            for row in np.unique(rows).tolist():
                self._lock(row)
            yield
        finally:
            self._release()

    def claim_free(self, rows: RowNumbers) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Claim rows without waiting, until the end of `claimed`; return True for those it got."""
        return np.array([self._lock_free(row) for row in rows.tolist()], dtype=np.bool_)

    def _lock_free(self, row: int) -> bool:
        if fcntl is None or self._file < 0:
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, row)
        except OSError:
            return False
        return True

    def _lock(self, row: int) -> None:
        try:
            if self._file < 0:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, row)
        except OSError as error:
            # Without locks some records may be computed twice, and the first one stays; a folder
            # that is read-only or gone is refused by the first write.
            if error.errno not in _NO_CLAIMS:
                raise

    def _release(self) -> None:
        if self._file >= 0:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            os.close(self._file)


_NO_CLAIMS = {*locks.NO_LOCKS, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EDEADLK}
"""Errors of systems and folders in which no byte can be locked."""


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    folder = path.with_suffix(".d")
    folder.mkdir(exist_ok=True)
    with locks.locked(folder):
        yield
