"""A bank in a folder: one table, which training fills record by record."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from understudy import files, locks
from understudy.bank._bank import Bank, Keys
from understudy.bank._claims import Claims
from understudy.bank._row_file import RowFile, RowNumbers, Words, checksums
from understudy.bank.manifest import CHECK_BYTES, Contract, refuse_other
from understudy.config.json_form import check_form, parse_json
from understudy.errors import BankError
from understudy.features import Features

LOGGER = logging.getLogger("understudy")

LAYOUT = "views × images"
"""Order of the records, as the manifest names it."""


@final
class Table(Bank):
    """A table of the teacher's features on disk, read and written by image and view number.

    A bank with fewer views than the contract asks for grows; one with more offers all it has.

    Args:
        path: Directory of the bank.
        contract: What the records must depend on.
        create: Make a bank that does not exist, and enlarge one that has fewer views.

    Attributes:
        path: The same.

    Raises:
        BankError: The directory holds another bank (the difference is named), is damaged, or holds
            none and shall not be made.
    """

    def __init__(self, path: Path, contract: Contract, *, create: bool = True) -> None:
        files.refuse_address(path, "bank.path")
        contract = _create_or_grow(path, contract) if create else _existing(path, contract)
        super().__init__(str(path), contract)
        self.path = self.folder = path
        length = self.contract.records
        self._records = RowFile(path / "records.bin", length=length, width=sum(self._bytes) // 4)
        self._claims = Claims(path / ".claims")
        self._checks = RowFile(path / "checks.bin", length=length, width=1)

    def filled(self) -> int:
        """Count the stored records."""
        return int(np.count_nonzero(self._checks.rows))

    def _checks_of(self, rows: RowNumbers) -> Words:
        return self._checks.read(rows)[:, 0]

    def _records_of(self, rows: RowNumbers) -> Words:
        return self._records.read(rows)

    def _drop(self, rows: RowNumbers, problem: str) -> None:
        """Mark damaged records as empty."""
        if not self._checks.writable:
            raise BankError(
                f"{problem}, and the bank is read-only: make it writable, so that the teacher can "
                "compute it again, or name another folder by bank.path."
            )
        with self._writing():
            # Another process may have dropped and filled them in the meantime.
            records, checks = self._records.read(rows), self._checks.read(rows)[:, 0]
            rows = rows[(checks != 0) & (checks != checksums(records))]
            self._checks.write(rows, np.zeros((len(rows), 1), np.uint32))
        if len(rows):
            LOGGER.warning(f"{problem}; the teacher computes it again.")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Keep other processes from writing records meanwhile.

        Raises:
            BankError: The bank is read-only or gone, or the disk is full.
        """
        try:
            self._records.check_writable()
            self._checks.check_writable()
            with locks.locked(self.path):
                yield
        except OSError as error:
            raise BankError(
                f"The bank {self.path} cannot be written ({error.strerror}); what it holds is "
                "intact. Free some space, name another folder by bank.path, or leave it out."
            ) from error

    def write(
        self,
        index: Int64[Tensor, " batch"],
        number: Int64[Tensor, " batch"],
        features: Features,
    ) -> None:
        """Store features of views that are not stored yet; skip those that are.

        Raises:
            BankError: A feature is not finite and would be replayed for ever, or the disk is full
                or read-only.
        """
        rows, records = self._rows(index, number), self.encoded(features)
        with self._writing():
            # Of two processes that met the same view, the first one's record stays.
            empty = ~self._stored(rows)
            rows, records = rows[empty], records[empty]
            # Checksums last: what a process that is killed in between leaves counts as empty.
            self._records.write(rows, records)
            self._checks.write(rows, checksums(records)[:, None])

    @contextmanager
    def claimed(
        self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]
    ) -> Iterator[None]:
        """Wait until no other process computes any of some views, and let none do so meanwhile."""
        with self._claims.claimed(self._rows(index, number)):
            yield

    def claim_free(
        self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]
    ) -> Bool[Tensor, " batch"]:
        """Claim views that no other process computes, until the end of `claimed`; return which."""
        return torch.from_numpy(self._claims.claim_free(self._rows(index, number)))

    def sample(self, records: int) -> Keys:
        """Return image and view numbers of random stored records; the same at every call."""
        return self._drawn(np.flatnonzero(self._checks.rows), records, np.random.default_rng(0))

    def _stored(self, rows: RowNumbers) -> np.ndarray[Any, np.dtype[np.bool_]]:
        stored: np.ndarray[Any, np.dtype[np.bool_]] = self._checks.read(rows)[:, 0] != 0
        return stored


def _existing(path: Path, contract: Contract) -> Contract:
    """Return the contract of a bank that exists, with as many views as it has."""
    if not (path / "manifest.json").is_file():
        raise BankError(
            f"There is no bank in {path}, which is empty or does not exist: check bank.path, or "
            "fill one with `understudy bank build`."
        )
    return _stored(path, contract)


def _create_or_grow(path: Path, contract: Contract) -> Contract:
    """Make a bank of at least as many views as asked for; return its contract."""
    manifest = path / "manifest.json"
    if manifest.is_file():
        stored = _stored(path, contract)
        if stored.num_views >= contract.num_views:
            return stored
    with _locked(path):
        # Another process may have made it, or let it grow, in the meantime.
        views = 0
        if manifest.is_file():
            stored = _stored(path, contract)
            views, contract = stored.num_views, replace(contract, scales=stored.scales)
        files.sweep(path)
        if views < contract.num_views:
            _extend(path / "records.bin", contract.record_bytes * contract.records)
            files.allocate(path / "checks.bin", CHECK_BYTES * contract.records)
            # Last: a bank that is half made is none, and one that is half grown is unchanged.
            content = {"layout": LAYOUT} | asdict(contract)
            text = files.as_json(content, indent=1)
            files.write(manifest, text, key="bank.path", again="start again")
    return replace(contract, num_views=max(views, contract.num_views))


def _extend(file: Path, size: int) -> None:
    """Extend a file to a size by a hole, which takes no room on the disk."""
    file.touch()
    if file.stat().st_size < size:
        os.truncate(file, size)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from making or enlarging this bank meanwhile."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with locks.locked(path):
            yield
    except OSError as error:
        raise BankError(
            f"The bank {path} cannot be made or enlarged ({error.strerror}); name another folder "
            "by bank.path."
        ) from error


def _stored(path: Path, contract: Contract) -> Contract:
    """Return the contract with as many views as a bank has, and its scales.

    Raises:
        BankError: Anything else differs from the contract.
    """
    remedy = "delete the bank; it is filled again as training goes on"
    stored = parse_json(path / "manifest.json", remedy=remedy, error=BankError)
    check_form(stored, {"num_views": int}, path / "manifest.json", remedy=remedy, error=BankError)
    refuse_other(stored, {"layout": LAYOUT} | asdict(contract), str(path))
    return replace(contract.as_stored(stored), num_views=int(stored["num_views"]))
