"""A bank: what all banks have in common, wherever their records lie; a copy of one on a GPU."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from understudy.bank._row_file import RowNumbers, Words, checksums
from understudy.bank.codecs import Rows
from understudy.bank.manifest import Contract
from understudy.errors import BankError
from understudy.features import Features

Keys = tuple[Int64[Tensor, " records"], Int64[Tensor, " records"]]
"""Image and view numbers of some records."""


class RecordsDropped(BankError):
    """Records were not what was stored, and count as empty from now on."""


class Bank(ABC):
    """A table of the teacher's features, read by image and view number.

    Args:
        place: Directory or address of the bank.
        contract: What its records depend on, with as many views as the bank has.

    Attributes:
        place: The same, for messages.
        folder: Folder of this machine for what belongs beside the bank.
        contract: The same.
    """

    folder: Path

    def __init__(self, place: str, contract: Contract) -> None:
        self.place, self.contract = place, contract
        self._bytes = [codec.bytes for codec in contract.codecs.values()]

    @abstractmethod
    def filled(self) -> int:
        """Count the stored records."""

    @abstractmethod
    def sample(self, records: int) -> Keys:
        """Return image and view numbers of random stored records; the same at every call."""

    @abstractmethod
    def _stored(self, rows: RowNumbers) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return True for every row that is stored."""

    @abstractmethod
    def _checks_of(self, rows: RowNumbers) -> Words:
        """Return the checksums of some rows; 0 where nothing is stored."""

    @abstractmethod
    def _records_of(self, rows: RowNumbers) -> Words:
        """Return the records of some rows, all of which are stored."""

    @abstractmethod
    def _drop(self, rows: RowNumbers, problem: str) -> None:
        """Mark damaged records as empty, or refuse the bank.

        Raises:
            BankError: Nothing can be changed here.
        """

    def has(
        self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]
    ) -> Bool[Tensor, " batch"]:
        """Return True for every view that is stored."""
        return torch.from_numpy(self._stored(self._rows(index, number)))

    def read(self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]) -> Features:
        """Return stored features of some views, in float32; codes as bytes.

        Raises:
            RecordsDropped: A record is empty, or its bytes are not those that were written; it
                counts as empty from now on.
            BankError: The same, of a bank that is read-only.
        """
        return self.decoded(self._checked(index, number))

    def intact(self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]) -> bool:
        """Return True if all of some views are stored, and read as what was stored.

        Raises:
            BankError: The bank is damaged and read-only.
        """
        if not self.has(index, number).all():
            return False
        try:
            self._checked(index, number)
        except RecordsDropped:
            return False
        return True

    def encoded_view(self, number: int) -> Rows:
        """Return the records of one view of all images, encoded as they are stored.

        Raises:
            BankError: As for `read`.
        """
        index = torch.arange(self.contract.num_images)
        return self._checked(index, torch.full_like(index, number))

    def _checked(self, index: Tensor, number: Tensor) -> Rows:
        rows = self._rows(index, number)
        checks = self._checks_of(rows)
        stored = checks != 0
        # Empty records are not read: through the map, that would give them memory on a tmpfs.
        records = self._records_of(rows[stored])
        intact = checks[stored] == checksums(records)
        if stored.all() and intact.all():
            return torch.from_numpy(records.view(np.uint8))
        wrong = ~stored
        wrong[stored] = ~intact
        first, count = int(np.flatnonzero(wrong)[0]), int(wrong.sum())
        problem = (
            f"{self.place}: view {int(number[first])} of image {int(index[first])} is not what was "
            f"stored{f', nor are {count - 1} others' if count > 1 else ''}"
        )
        if not intact.all():
            self._drop(rows[stored][~intact], problem)
        raise RecordsDropped(f"{problem}. It counts as empty: run the command again to fill it.")

    def rounded(self, features: Features) -> Features:
        """Return features as they would come back from this bank."""
        return self.decoded(self._flat(features))

    def encoded(self, features: Features) -> Words:
        """Return the records of features.

        Raises:
            BankError: A feature is not finite and would be replayed for ever.
        """
        encoded = self._flat(features)
        # What comes back is checked, not what was given: 70,000 is finite, but not in fp16.
        if not all(x.isfinite().all() for x in self.decoded(encoded).values()):
            raise BankError(
                f"The teacher gave a NaN, or a number beyond {self.contract.dtype}: check its "
                "weights, or set bank.dtype to fp32."
            )
        words: Words = encoded.numpy().view(np.uint32)
        return words

    def _rows(self, index: Tensor, number: Tensor) -> RowNumbers:
        rows: RowNumbers = (number * self.contract.num_images + index).cpu().numpy()
        return rows

    def _drawn(self, stored: RowNumbers, records: int, draw: np.random.Generator) -> Keys:
        """Return image and view numbers of some of the stored rows, in the order of the rows."""
        rows = np.sort(draw.choice(stored, min(records, len(stored)), replace=False))
        number, index = np.divmod(rows, self.contract.num_images)
        return torch.from_numpy(index), torch.from_numpy(number)

    def _flat(self, features: Features) -> Rows:
        flat = [
            codec.encode(features[name].detach().flatten(1).cpu())
            for name, codec in self.contract.codecs.items()
        ]
        return torch.cat(flat, dim=1)

    def decoded(self, records: Rows) -> Features:
        """Return the features of encoded records, by name."""
        codecs, shapes = self.contract.codecs.items(), self.contract.features
        parts = torch.split(records, self._bytes, dim=1)
        return {
            name: codec.decode(part).reshape(-1, *shapes[name])
            for (name, codec), part in zip(codecs, parts, strict=True)
        }


@final
class Resident:
    """A copy of a complete bank in the memory of a GPU, read without waiting for the host.

    Args:
        bank: Bank with no empty record.
        device: The GPU.

    Raises:
        BankError: A record is empty, or its bytes are not those that were written.
    """

    def __init__(self, bank: Bank, device: torch.device) -> None:
        self._bank, contract = bank, bank.contract
        shape = contract.records, contract.record_bytes
        self._records = torch.empty(shape, dtype=torch.uint8, device=device)
        # View by view: a whole bank may not fit into the memory of the host.
        for view in range(contract.num_views):
            first = view * contract.num_images
            records = bank.encoded_view(view).to(device)
            self._records[first : first + contract.num_images] = records

    def read(self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]) -> Features:
        """Return stored features of some views, in float32; the numbers lie on the device too."""
        rows = number * self._bank.contract.num_images + index
        return self._bank.decoded(self._records.index_select(0, rows))
