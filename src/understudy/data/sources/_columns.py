"""A file of columns: named arrays behind a header in JSON, mapped into memory when they are read.

Worker processes and ranks share the pages of the file, and read no more of it than they use.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, final

import numpy as np

from understudy import files
from understudy.data._lazy import LazySequence
from understudy.errors import DataError

_ALIGNED = 64
"""Columns start at multiples of this many bytes."""
_MAGIC = b"understudy columns 1\n"

Column = np.ndarray[Any, Any]


@final
class Columns:
    """Columns of a file, each an array that is mapped and not copied.

    Attributes:
        file: The file.
        header: What else it says, as plain data.

    Raises:
        ValueError: The file is damaged or of another form.
        OSError: It cannot be read.
        DataError: It is another one than a worker process was sent.
    """

    def __init__(self, file: Path, stamp: int | None = None) -> None:
        self.file = file
        with file.open("rb") as opened:
            if opened.readline(80) != _MAGIC:
                raise ValueError(f"{file} is no file of columns")
            described = json.loads(opened.readline())
            start = -(-opened.tell() // _ALIGNED) * _ALIGNED
            status = os.fstat(opened.fileno())
            if status.st_size < start + described["bytes"]:
                raise ValueError(f"{file} is shorter than its columns")
            # Copied when written: torch warns of arrays that must not be written. Mapped at once,
            # since another process may put another file in its place.
            content = np.memmap(opened, np.uint8, "c", shape=(status.st_size,)).view(np.ndarray)
        self._stamp = status.st_mtime_ns
        if stamp not in (None, self._stamp):
            raise DataError(f"{file} was made anew while it was in use: start the run again.")
        self.header: dict[str, Any] = described["header"]
        self._columns: dict[str, Column] = {
            name: content[start + offset :][: rows * np.dtype(dtype).itemsize].view(dtype)
            for name, (dtype, rows, offset) in described["columns"].items()
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a worker process map the file itself: pickled, the map would become a copy."""
        return Columns, (self.file, self._stamp)

    def __getitem__(self, name: str) -> Column:
        """Return a column; what is written into it stays in this process."""
        return self._columns[name]

    def texts(self, name: str) -> "Texts":
        """Return a column of texts."""
        return Texts(self, name)


@final
class Texts(LazySequence[str]):
    """A column of texts, each decoded when it is asked for."""

    def __init__(self, columns: Columns, name: str) -> None:
        self._columns, self._name = columns, name

    def __len__(self) -> int:
        return len(self._columns[f"{self._name}.ends"])

    def _entry(self, i: int) -> str:
        ends = self._columns[f"{self._name}.ends"]
        start = int(ends[i - 1]) if i else 0
        return self._columns[self._name][start : int(ends[i])].tobytes().decode(*_CODEC)


_CODEC = ("utf-8", "surrogateescape")
"""File names need not be text in any encoding."""


@final
class Packed(LazySequence[str]):
    """Texts that are packed one after the other while a file of columns is made."""

    def __init__(self) -> None:
        self._bytes, self._ends = bytearray(), np.zeros(1024, np.int64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def _entry(self, i: int) -> str:
        start = int(self._ends[i - 1]) if i else 0
        return self._bytes[start : int(self._ends[i])].decode(*_CODEC)

    def extend(self, texts: Iterable[str]) -> None:
        """Append texts."""
        for text in texts:
            if self._count == len(self._ends):
                self._ends = np.concatenate([self._ends, np.zeros_like(self._ends)])
            self._bytes += text.encode(*_CODEC)
            self._ends[self._count] = len(self._bytes)
            self._count += 1

    def columns(self, name: str) -> dict[str, Column]:
        """Return the texts as columns of a file."""
        packed = np.frombuffer(self._bytes, np.uint8)
        return {name: packed, f"{name}.ends": self._ends[: self._count]}

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._ends[: self._count].tolist():
            yield self._bytes[start:end].decode(*_CODEC)
            start = end


def store(file: Path, header: Mapping[str, Any], columns: Mapping[str, Column]) -> None:
    """Write a file of columns in one step.

    Raises:
        OSError: The folder cannot be written, or its disk is full.
    """
    forms, offset = dict[str, list[Any]](), 0
    for name, column in columns.items():
        forms[name] = [column.dtype.newbyteorder("<").str, len(column), offset]
        offset += -(-column.nbytes // _ALIGNED) * _ALIGNED
    described = {"header": header, "columns": forms, "bytes": offset}
    partial = file.with_name(f".{file.name}.{os.getpid()}{files.PARTIAL}")
    try:
        with partial.open("wb") as opened:
            opened.write(_MAGIC + files.as_json(described).encode() + b"\n")
            opened.write(bytes(-opened.tell() % _ALIGNED))
            for column in columns.values():
                opened.write(column.astype(column.dtype.newbyteorder("<"), copy=False).data)
                opened.write(bytes(-column.nbytes % _ALIGNED))
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
