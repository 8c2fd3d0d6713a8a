"""A file of rows of 32-bit words: mapped into memory for reading, written by position."""

import errno
import os
from pathlib import Path
from typing import Any, final

import numpy as np

from understudy import files
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
            self._file = os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
        except OSError:
            self._file = -1  # a complete bank may be read-only

    def read(self, rows: RowNumbers) -> Words:
        """Return a copy of some rows."""
        # `take` is faster than indexing with the same numbers.
        return self.rows.take(rows, axis=0)

    @property
    def writable(self) -> bool:
        """False if the file is read-only."""
        return self._file >= 0

    def check_writable(self) -> None:
        """Refuse to write a file that is read-only, or that was deleted or moved meanwhile.

        Raises:
            OSError: It is.
        """
        if not self.writable:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if not os.path.samestat(os.fstat(self._file), self.path.stat()):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def write(self, rows: RowNumbers, content: Words) -> None:
        """Replace some rows.

        Raises:
            OSError: The disk is full or read-only.
        """
        # Rows that follow each other are written by one call.
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
        stops = np.flatnonzero(np.diff(rows, append=-2) != 1) + 1
        for start, stop in zip(starts, stops, strict=True):
            data = content[start:stop].data.cast("B")
            files.write_at(self._file, data, int(rows[start]) * content[0].nbytes)

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
