"""A table of teacher outputs on disk."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from understudy import files
from understudy.bank._table import Places, Table, checksums
from understudy.bank.codecs import Rows
from understudy.bank.manifest import CHECK_BYTES, Contract
from understudy.errors import BankError
from understudy.features import Features

_LAYOUT = "views × images"


class Bank:
    """A table of teacher outputs on disk, read and written by image and view number.

    A bank of fewer views than asked for grows; of one of more views, all are there to be used.

    Args:
        path: The bank's directory; created if there is none.
        contract: What the records must depend on.

    Raises:
        BankError: The directory holds another bank (the difference is named), or is damaged.
    """

    def __init__(self, path: Path, contract: Contract) -> None:
        self.path, self.contract = path, _agreed(path, contract)
        forms, length = self.contract.forms, self.contract.records
        self._bytes = [form.bytes for form in forms.values()]
        self._records = Table(path / "records.bin", length=length, width=sum(self._bytes) // 4)
        self._checks = Table(path / "checks.bin", length=length, width=1)

    def filled(self) -> int:
        """How many records are stored."""
        return int(np.count_nonzero(self._checks.rows))

    def has(
        self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]
    ) -> Bool[Tensor, " batch"]:
        """Which views of which images are stored."""
        return torch.from_numpy(self._has(self._rows(index, number)))

    def read(self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]) -> Features:
        """Stored features of some views, in float32; codes as the bytes they are.

        Raises:
            BankError: A record is empty, or its bytes are not those that were written.
        """
        return self.decoded(self._checked(index, number))

    def whole(self, number: int) -> Rows:
        """The records of one view of all images, as they are stored.

        Raises:
            BankError: As for `read`.
        """
        index = torch.arange(self.contract.num_images)
        return self._checked(index, torch.full_like(index, number))

    def _checked(self, index: Tensor, number: Tensor) -> Rows:
        rows = self._rows(index, number)
        records = self._records.read(rows)
        wrong = self._checks.read(rows)[:, 0] != checksums(records)
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise BankError(
                f"{self.path} is damaged: view {int(number[first])} of image {int(index[first])} "
                "is not what was stored. Delete it; it is filled again as training goes on."
            )
        return torch.from_numpy(records.view(np.uint8))

    def write(
        self,
        index: Int64[Tensor, " batch"],
        number: Int64[Tensor, " batch"],
        features: Features,
    ) -> None:
        """Store features of some views, but those that are stored already.

        Raises:
            BankError: A feature is not finite and would be replayed for ever, or the disk is full
                or read-only.
        """
        encoded = self._encoded(features)
        if not all(x.isfinite().all() for x in self.decoded(encoded).values()):
            raise BankError(
                f"The teacher gave a NaN, or a number beyond {self.contract.dtype}: check its "
                "weights, or set bank.dtype to fp32."
            )
        rows, records = self._rows(index, number), encoded.numpy().view(np.uint32)
        with self._checks.alone():
            # Of two processes that met the same view, the first one's record stays whole.
            empty = ~self._has(rows)
            rows, records = rows[empty], records[empty]
            self._records.write(rows, records)
            self._checks.write(rows, checksums(records)[:, None])

    def rounded(self, features: Features) -> Features:
        """Features as they would come back from this bank."""
        return self.decoded(self._encoded(features))

    def sample(self, records: int) -> tuple[Int64[Tensor, " records"], Int64[Tensor, " records"]]:
        """Image and view numbers of some stored records, at random but the same each time."""
        stored = np.flatnonzero(self._checks.rows)
        count = min(records, len(stored))
        rows = np.sort(np.random.default_rng(0).choice(stored, count, replace=False))
        number, index = np.divmod(rows, self.contract.num_images)
        return torch.from_numpy(index), torch.from_numpy(number)

    def _rows(self, index: Tensor, number: Tensor) -> Places:
        rows: Places = (number * self.contract.num_images + index).cpu().numpy()
        return rows

    def _has(self, rows: Places) -> np.ndarray[Any, np.dtype[np.bool_]]:
        stored: np.ndarray[Any, np.dtype[np.bool_]] = self._checks.read(rows)[:, 0] != 0
        return stored

    def _encoded(self, features: Features) -> Rows:
        forms = self.contract.forms.items()
        flat = [form.encode(features[name].detach().flatten(1).cpu()) for name, form in forms]
        return torch.cat(flat, dim=1)

    def decoded(self, records: Rows) -> Features:
        """The features that some records stand for."""
        forms, shapes = self.contract.forms.items(), self.contract.features
        parts = torch.split(records, self._bytes, dim=1)
        return {
            name: form.decode(part).reshape(-1, *shapes[name])
            for (name, form), part in zip(forms, parts, strict=True)
        }


@final
class Resident:
    """A copy of a complete bank in the memory of a device, read without asking the host.

    Args:
        bank: Bank with no empty record.
        device: Where its records are kept.

    Raises:
        BankError: A record is empty, or its bytes are not those that were written.
    """

    def __init__(self, bank: Bank, device: torch.device) -> None:
        self._bank, contract = bank, bank.contract
        shape = contract.records, contract.record_bytes
        self._records = torch.empty(shape, dtype=torch.uint8, device=device)
        for view in range(contract.num_views):
            first = view * contract.num_images
            part = bank.whole(view)
            self._records[first : first + contract.num_images] = part.to(device)

    def read(self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]) -> Features:
        """Stored features of some views, in float32; the numbers lie on the device too."""
        rows = number * self._bank.contract.num_images + index
        return self._bank.decoded(self._records.index_select(0, rows))


def _agreed(path: Path, contract: Contract) -> Contract:
    """The contract with as many views as the bank has, once there are as many as asked for."""
    manifest = path / "manifest.json"
    views = _views(path, contract) if manifest.is_file() else 0
    if views >= contract.num_views:
        return replace(contract, num_views=views)
    with _alone(path):
        # Another process may have made it, or let it grow, since the look at it.
        views = _views(path, contract) if manifest.is_file() else 0
        if views < contract.num_views:
            _extend(path / "records.bin", contract.record_bytes * contract.records)
            _extend(path / "checks.bin", CHECK_BYTES * contract.records)
            # Last, so that half a bank is no bank, and a half-grown one is as it was.
            content = {"layout": _LAYOUT} | asdict(contract)
            files.write(manifest, json.dumps(content, indent=1))
    return replace(contract, num_views=max(views, contract.num_views))


def _extend(file: Path, size: int) -> None:
    """Give a file this size at least; what is new is a hole, which takes no room on the disk."""
    file.touch()
    if file.stat().st_size < size:
        os.truncate(file, size)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While no other process makes this bank or lets it grow."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        folder = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)
    except OSError as error:
        raise BankError(
            f"The bank {path} cannot be made or enlarged ({error.strerror}); name another folder "
            "by bank.path."
        ) from error


def _views(path: Path, contract: Contract) -> int:
    """How many views a bank has; refuses one that was made of anything else than is asked for."""
    try:
        stored: Mapping[str, Any] = json.loads((path / "manifest.json").read_text())
    except ValueError as error:
        raise BankError(
            f"{path / 'manifest.json'} is damaged: delete the bank; it is filled again as training "
            "goes on."
        ) from error
    wanted = json.loads(json.dumps({"layout": _LAYOUT} | asdict(contract)))
    for key in wanted:
        if key != "num_views" and stored.get(key) != wanted[key]:
            raise BankError(
                f"The bank {path} was filled with another {_NAMES.get(key, key)}: "
                f"{_line(stored.get(key))} there, {_line(wanted[key])} here. Name another folder "
                "by bank.path."
            )
    return int(stored["num_views"])


def _line(value: Any) -> str:
    """A value in one line; some transforms describe themselves in several."""
    return " ".join(str(value).split())


_NAMES = {"num_images": "number of images", "top_logits": "number of logits"}
