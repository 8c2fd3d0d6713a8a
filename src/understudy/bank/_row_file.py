"""A file of rows of 32-bit words: mapped into memory for reading, written by position."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np

from understudy.errors import BankError

Words = np.ndarray[Any, np.dtype[np.uint32]]
RowNumbers = np.ndarray[Any, np.dtype[np.int64]]


@final
class RowFile:
    """The first `length` rows of a file.

    Rows are not written through the map: on a full disk that would kill the process, where writing
    to the file raises an error.

    Args:
        path: File, which exists already.
        length: Number of rows.
        width: 32-bit words of a row.

    Raises:
        BankError: The file cannot be read, or is too short.
    """

    def __init__(self, path: Path, *, length: int, width: int) -> None:
        self.path = path
        try:
            words: Words = np.memmap(path, dtype=np.uint32, mode="r")
        except (OSError, ValueError) as error:
            raise BankError(
                f"{path} cannot be read ({error}): delete the bank, or name another folder by "
                "bank.path."
            ) from error
        if words.size < length * width:
            raise BankError(
                f"{path.parent} is damaged: it holds {words.size // width} of {length} records. "
                "Delete it; it is filled again as training goes on."
            )
        # A plain array: memmap's own class costs more than a small read.
        self.rows: Words = np.asarray(words[: length * width]).reshape(length, width)
        try:
            self._file = os.open(path, os.O_WRONLY)
        except OSError:
            self._file = -1  # a complete bank may be read-only

    def read(self, rows: RowNumbers) -> Words:
        """Return a copy of some rows."""
        # `take` is faster than indexing with the same numbers.
        return self.rows.take(rows, axis=0)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing meanwhile.

        Raises:
            BankError: The file is read-only, or the disk is full.
        """
        try:
            if self._file < 0:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        except OSError as error:
            raise BankError(
                f"The bank {self.path.parent} cannot be written ({error.strerror}); what it holds "
                "is intact. Free some space, name another folder by bank.path, or leave it out."
            ) from error

    def write(self, rows: RowNumbers, content: Words) -> None:
        """Replace some rows; call it within `locked`.

        Raises:
            OSError: The disk is full or read-only.
        """
        # Rows that follow each other are written by one call.
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
        stops = np.flatnonzero(np.diff(rows, append=-2) != 1) + 1
        for start, stop in zip(starts, stops, strict=True):
            data = content[start:stop].data.cast("B")
            # A short write is how a disk that becomes full shows itself.
            if os.pwrite(self._file, data, int(rows[start]) * content[0].nbytes) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            os.close(self._file)


def checksums(records: Words) -> Words:
    """Return a checksum of each record, never 0: that marks an empty record.

    It is the sum of the words times odd numbers modulo 2³², which any change of one word changes.
    """
    odd = np.arange(1, 2 * records.shape[1], 2, dtype=np.uint32)
    total: Words = np.einsum("rw,w->r", records, odd)
    return np.where(total == 0, np.uint32(1), total)
