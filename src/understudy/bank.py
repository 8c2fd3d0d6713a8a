"""The bank: the teacher's outputs, stored once for every view it has seen and replayed after that.

A bank is a directory with

    manifest.json   what the records depend on, and the form of a record
    records.bin     one record for every (image, view): the teacher's features, end to end
    checks.bin      one checksum for every record; 0 where nothing is stored yet

Both binary files have their full size from the start, the records as a hole: an empty one takes no
room on the disk. A record is written before its checksum, so that a process killed in between
leaves a record that counts as empty. A table is complete for small images, whose crops and mirrors
are few (162 for CIFAR), and holds as many views as asked for otherwise.
"""

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from understudy import storage
from understudy.errors import BankError
from understudy.features import Features

DType = Literal["fp32", "fp16", "int8"]
_TORCH = {"fp32": torch.float32, "fp16": torch.float16}
_NUMPY = {"fp32": np.float32, "fp16": np.float16}
_Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Contract:
    """What the records of a bank depend on: all of it must be equal for a record to be replayed.

    Attributes:
        teacher: Digest of the teacher's weights.
        input: The teacher's size, mean, deviation and interpolation.
        precision: Arithmetic of the teacher's forward pass.
        images: Digest of the images and their order.
        transform: What makes a view of an image, its seed included where it has one.
        num_images: Rows of the table.
        num_views: Columns of the table.
        features: Name → shape of what is stored of the teacher's outputs.
        dtype: How numbers are stored.
    """

    teacher: str
    input: str
    precision: str
    images: str
    transform: str
    num_images: int
    num_views: int
    features: dict[str, tuple[int, ...]]
    dtype: DType = "fp32"

    @property
    def record_bytes(self) -> int:
        """Bytes of one record."""
        return sum(map(prod, self.features.values())) * np.dtype(_NUMPY[self.dtype]).itemsize

    @property
    def records(self) -> int:
        """How many records a complete table has."""
        return self.num_images * self.num_views

    @property
    def bytes(self) -> int:
        """Bytes of a complete table, checksums included."""
        return self.records * (self.record_bytes + np.dtype(np.uint32).itemsize)


class Bank:
    """A table of teacher outputs on disk, read and written by (image, view) number.

    Args:
        path: The bank's directory; created if there is none.
        contract: What the records must depend on.

    Raises:
        BankError: The directory holds another bank (the difference is named), or is damaged.
    """

    def __init__(self, path: Path, contract: Contract) -> None:
        self.path, self.contract = path, contract
        if contract.dtype not in _NUMPY:
            raise BankError(f"A bank keeps fp32 or fp16, not {contract.dtype}: set bank.dtype.")
        if not (path / "manifest.json").is_file():
            _create(path, contract)
        _refuse(path, contract)
        self._widths = [prod(shape) for shape in contract.features.values()]
        self._records = _Table(path / "records.bin", _NUMPY[contract.dtype], sum(self._widths))
        self._checks = _Table(path / "checks.bin", np.uint32, 1)
        if len(self._records) != contract.records or len(self._checks) != contract.records:
            raise BankError(
                f"{path} is damaged: it holds {len(self._records)} of {contract.records} records. "
                "Delete it; it is filled again as training goes on."
            )

    def filled(self) -> int:
        """How many records are stored."""
        return int(np.count_nonzero(self._checks.rows))

    def has(
        self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]
    ) -> Bool[Tensor, " batch"]:
        """Which views of which images are stored."""
        return torch.from_numpy(self._checks.rows[self._rows(index, number), 0] != 0)

    def read(self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]) -> Features:
        """Stored features of some views, in float32.

        Raises:
            BankError: A record is empty, or its bytes are not those that were written.
        """
        rows = self._rows(index, number)
        records = self._records.rows[rows]
        wrong = self._checks.rows[rows, 0] != _checksums(records)
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise BankError(
                f"{self.path} is damaged: view {int(number[first])} of image {int(index[first])} "
                "is not what was stored. Delete it; it is filled again as training goes on."
            )
        return self._split(torch.from_numpy(records).float())

    def write(
        self,
        index: Int64[Tensor, " batch"],
        number: Int64[Tensor, " batch"],
        features: Features,
    ) -> None:
        """Store features of some views.

        Raises:
            BankError: A feature is not finite and would be replayed for ever, or the disk is full
                or read-only.
        """
        flat = [features[name].detach().flatten(1).cpu() for name in self.contract.features]
        records = torch.cat(flat, dim=1).to(_TORCH[self.contract.dtype])
        if not records.isfinite().all():
            raise BankError(
                f"The teacher gave a NaN, or a number beyond {self.contract.dtype}: check its "
                "weights, or set bank.dtype to fp32."
            )
        rows, content = self._rows(index, number), records.numpy()
        self._records.write(rows, content)
        self._checks.write(rows, _checksums(content))

    def sample(self, records: int) -> tuple[Int64[Tensor, " records"], Int64[Tensor, " records"]]:
        """Image and view numbers of some stored records, at random but the same each time."""
        stored = np.flatnonzero(self._checks.rows)
        count = min(records, len(stored))
        rows = np.sort(np.random.default_rng(0).choice(stored, count, replace=False))
        index, number = np.divmod(rows, self.contract.num_views)
        return torch.from_numpy(index), torch.from_numpy(number)

    def _rows(self, index: Tensor, number: Tensor) -> _Rows:
        rows: _Rows = (index * self.contract.num_views + number).cpu().numpy()
        return rows

    def _split(self, records: Tensor) -> Features:
        parts = torch.split(records, self._widths, dim=1)
        shapes = self.contract.features.items()
        return {
            name: part.reshape(-1, *shape)
            for (name, shape), part in zip(shapes, parts, strict=True)
        }


def _create(path: Path, contract: Contract) -> None:
    """An empty bank; the manifest comes last, so that half a bank is no bank."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with (path / "records.bin").open("wb") as file:
            file.truncate(contract.record_bytes * contract.records)
        with (path / "checks.bin").open("wb") as file:
            file.write(bytes(np.dtype(np.uint32).itemsize * contract.records))
    except OSError as error:
        raise BankError(
            f"The bank {path} cannot be made ({error.strerror}); name another folder by bank.path."
        ) from error
    storage.write(path / "manifest.json", json.dumps(asdict(contract), indent=1))


def _refuse(path: Path, contract: Contract) -> None:
    """Name the first difference between what a bank was made of and what is asked for."""
    try:
        stored: Mapping[str, Any] = json.loads((path / "manifest.json").read_text())
    except ValueError as error:
        raise BankError(
            f"{path / 'manifest.json'} is damaged: delete the bank; it is filled again as training "
            "goes on."
        ) from error
    wanted = json.loads(json.dumps(asdict(contract)))
    different = [key for key in wanted if stored.get(key) != wanted[key]]
    if different:
        key = different[0]
        raise BankError(
            f"The bank {path} was filled with another {key.replace('num_', 'number of ')}: "
            f"{stored.get(key)} there, {wanted[key]} here. Name another folder by bank.path."
        )


class _Table:
    """A file of equal rows: mapped for reading, written by position.

    Writing through the map would end the process on a full disk; writing to the file says so.
    """

    def __init__(self, path: Path, dtype: Any, width: int) -> None:
        self.path = path
        try:
            flat: np.memmap[Any, Any] = np.memmap(path, dtype=dtype, mode="r")
        except (OSError, ValueError) as error:
            raise BankError(
                f"{path} cannot be read ({error}): delete the bank, or name another folder by "
                "bank.path."
            ) from error
        self.rows: np.ndarray[Any, Any] = flat[: len(flat) // width * width].reshape(-1, width)
        try:
            self._file = os.open(path, os.O_WRONLY)
        except OSError:
            self._file = -1  # a bank that is complete may lie where nobody can write

    def __len__(self) -> int:
        return len(self.rows)

    def write(self, rows: _Rows, content: np.ndarray[Any, Any]) -> None:
        """Replace some rows; `BankError` if the disk is full or read-only."""
        lines = np.ascontiguousarray(content).reshape(len(rows), -1).view(np.uint8)
        try:
            if self._file < 0:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            for row, line in zip(rows.tolist(), lines, strict=True):
                if os.pwrite(self._file, line.data, row * len(line)) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise BankError(
                f"The bank {self.path.parent} cannot be written ({error.strerror}); what it holds "
                "is intact. Free some space, name another folder by bank.path, or leave it out."
            ) from error

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            os.close(self._file)


def _checksums(records: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """A number that any flipped bit of a record changes; never 0, which marks an empty record.

    A sum of 16-bit words times odd numbers modulo 2³²: one changed word always changes it.
    """
    words = np.ascontiguousarray(records).view(np.uint16).astype(np.uint32)
    odd = np.arange(1, 2 * words.shape[1], 2, dtype=np.uint32)
    total = (words * odd).sum(axis=1, dtype=np.uint32)
    return np.where(total == 0, np.uint32(1), total)
