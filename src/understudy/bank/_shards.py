"""A bank in shards: written by any number of processes without a lock, read from anywhere.

    manifest.json             the contract, and how many images and views a shard has
    records/NAME.bin          the records of a shard, end to end, then a checksum for each
    complete/NAME.json        its marker, written last: what the file must hold (SHA-256, bytes)

NAME holds the views, the images and the digest of the content. Without its marker a shard does not
exist, so that a process may be killed anywhere. Two that build the same shard write the same file,
or two files with a marker each where their machines round differently; all readers take the same.
"""

import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory, mkstemp
from typing import Any, final

import numpy as np

from understudy import files, locks
from understudy.bank._bank import Bank, Keys
from understudy.bank._division import Division, Shard, parse_name
from understudy.bank._row_file import RowNumbers, Words, checksums
from understudy.bank._store import Store, local_folder, read_manifest
from understudy.bank.manifest import Contract, refuse_other
from understudy.errors import BankError
from understudy.features import Features

LAYOUT = "shards"
_MANIFEST, _RECORDS, _COMPLETE = "manifest.json", "records", "complete"
_OPEN = 4096
"""Shards that are mapped into memory at once; Linux allows a process some 65,000 maps."""

_SAMPLED = 8
"""Shards from which `sample` draws, at most: each may have to be fetched."""


@final
class Shards(Bank):
    """A bank in shards, each of which is complete or absent.

    What was complete when the bank was opened is read; `publish` adds to it.

    Args:
        store: Where it lies.
        contract: What the records must depend on; a bank with more views offers all it has.
        division: Make a bank that does not exist, divided so.

    Raises:
        BankError: There is another bank (the difference is named), or none and no division.
    """

    def __init__(
        self, store: Store, contract: Contract, *, division: Division | None = None
    ) -> None:
        self.store, self.folder = store, local_folder(store.place)
        self.division, contract = _opened(store, contract, division)
        present = _complete(store, self.division, contract)
        views = max([contract.num_views, *(shard.view + shard.views for shard in present)])
        super().__init__(store.place, replace(contract, num_views=views))
        self._digests = present
        self._maps: OrderedDict[Shard, tuple[Words, Words]] = OrderedDict()

    @property
    def complete(self) -> frozenset[Shard]:
        """Shards that can be read."""
        return frozenset(self._digests)

    def filled(self) -> int:
        """Count the stored records."""
        return sum(shard.records for shard in self._digests)

    def sample(self, records: int) -> Keys:
        """Return image and view numbers of random stored records; the same at every call."""
        shards, draw = sorted(self._digests), np.random.default_rng(0)
        chosen = draw.choice(len(shards), min(_SAMPLED, len(shards)), replace=False)
        rows = [self._rows_of(shards[i]) for i in chosen.tolist()]
        return self._drawn(np.concatenate([np.empty(0, np.int64), *rows]), records, draw)

    def publish(self, shard: Shard, batches: Iterable[Features]) -> None:
        """Store the features of a shard, in the order of its records; then it is complete.

        The records are written to a file of this machine first.

        Raises:
            BankError: A feature is not finite, or the bank cannot be written.
        """
        with self._writing_folder() as folder:
            file = folder / "records.bin"
            size, digest = self._write(file, batches)
            if size != shard.records * self.contract.stored_bytes:
                raise BankError(f"{shard.name('')}: there are features of other records.")
            name = shard.name(digest[:32])
            self.store.upload(file, f"{_RECORDS}/{name}.bin")
        marker = {"sha256": digest, "bytes": size, **asdict(shard)}
        self.store.publish(f"{_COMPLETE}/{name}.json", files.as_json(marker).encode())
        self._digests[shard] = digest[:32]

    @contextmanager
    def _writing_folder(self) -> Iterator[Path]:
        """Make a folder for the file of a shard, which is deleted afterwards."""
        try:
            # Beside the bank, where a move is one step; else wherever there is room.
            folder = TemporaryDirectory(prefix=".shard-", dir=self.store.local)
        except OSError as error:
            raise self._write_error(error) from error
        with folder as path:
            yield Path(path)

    def _write_error(self, error: OSError) -> BankError:
        """Return the error that says why the file of a shard was not written, and what to do."""
        local = self.store.local
        where = "a temporary folder" if local is None else str(local)
        key = "temporary folder by TMPDIR" if local is None else "folder by bank.path"
        return BankError(
            f"A shard of the bank {self.place} cannot be written to {where} ({error.strerror}): "
            f"free some space, or name another {key}; shards that are complete stay."
        )

    def _write(self, file: Path, batches: Iterable[Features]) -> tuple[int, str]:
        """Write records and then their checksums; return the size of the file and its SHA-256."""
        digest, size, checks = sha256(), 0, []
        try:
            with file.open("wb") as output:
                for features in batches:
                    records = np.ascontiguousarray(self.encoded(features))
                    checks.append(checksums(records))
                    size += output.write(records.data.cast("B"))
                    digest.update(records.data.cast("B"))
                content = np.concatenate(checks).tobytes()
                size += output.write(content)
                digest.update(content)
                # On the disk before its marker, which says that it is whole.
                output.flush()
                os.fsync(output.fileno())
        except OSError as error:
            raise self._write_error(error) from error
        return size, digest.hexdigest()

    def _rows_of(self, shard: Shard) -> RowNumbers:
        views = np.arange(shard.view, shard.view + shard.views, dtype=np.int64)[:, None]
        images = np.arange(shard.image, shard.image + shard.images, dtype=np.int64)
        rows: RowNumbers = (views * self.contract.num_images + images).flatten()
        return rows

    def _parts(self, rows: RowNumbers) -> list[tuple[Shard, Any, RowNumbers]]:
        """Return for every shard that some rows touch: which of them, and their places in it."""
        view, image = np.divmod(rows, self.contract.num_images)
        of = self.division
        across = -(-self.contract.num_images // of.images)
        keys = view // of.views * across + image // of.images
        order = np.argsort(keys, kind="stable")
        touched, starts = np.unique(keys[order], return_index=True)
        parts = []
        # Of no rows, `split` makes one part all the same.
        for key, mine in zip(touched.tolist(), np.split(order, starts[1:]), strict=False):
            down, right = divmod(key, across)
            shard = of.at(right * of.images, down * of.views, self.contract)
            places = (view[mine] - shard.view) * shard.images + image[mine] - shard.image
            parts.append((shard, mine, places))
        return parts

    def _stored(self, rows: RowNumbers) -> np.ndarray[Any, np.dtype[np.bool_]]:
        stored = np.zeros(len(rows), np.bool_)
        for shard, mine, _ in self._parts(rows):
            stored[mine] = shard in self._digests
        return stored

    def _checks_of(self, rows: RowNumbers) -> Words:
        checks = np.zeros(len(rows), np.uint32)
        for shard, mine, places in self._parts(rows):
            if shard in self._digests:
                checks[mine] = self._map(shard)[1].take(places)
        return checks

    def _records_of(self, rows: RowNumbers) -> Words:
        records = np.empty((len(rows), self.contract.record_bytes // 4), np.uint32)
        for shard, mine, places in self._parts(rows):
            records[mine] = self._map(shard)[0].take(places, axis=0)
        return records

    def _drop(self, rows: RowNumbers, problem: str) -> None:
        shard = self._parts(rows)[0][0]
        name = shard.name(self._digests[shard])
        raise BankError(
            f"{problem}, but a flipped bit or a torn file: delete {self._file(name)}"
            + (f" and {self.place}/{_COMPLETE}/{name}.json" if self.store.local else "")
            + (", and build the bank again, which computes the missing shard."
               if self.store.local else ", which is then fetched again.")
        )  # fmt: skip

    def _map(self, shard: Shard) -> tuple[Words, Words]:
        """Return the records of a shard and their checksums, mapped into memory."""
        if shard in self._maps:
            self._maps.move_to_end(shard)
            return self._maps[shard]
        name, width = shard.name(self._digests[shard]), self.contract.record_bytes // 4
        file = self._file(name)
        if self.store.local is None and not file.is_file():
            self._fetch(name, file)
        try:
            words: Words = np.asarray(np.memmap(file, dtype=np.uint32, mode="r"))
        except (OSError, ValueError) as error:
            raise BankError(f"{file} cannot be read ({error}): build the bank again.") from error
        if words.size != shard.records * (width + 1):
            raise BankError(
                f"{file} is damaged: it holds {words.size // (width + 1)} of {shard.records} "
                f"records. Delete it{'' if self.store.local is None else ' and its marker'}, and "
                "start again."
            )
        split = shard.records * width
        self._maps[shard] = words[:split].reshape(shard.records, width), words[split:]
        if len(self._maps) > _OPEN:
            self._maps.popitem(last=False)
        return self._maps[shard]

    def _file(self, name: str) -> Path:
        return self.folder / _RECORDS / f"{name}.bin"

    def _fetch(self, name: str, file: Path) -> None:
        """Copy the file of a shard into the cache of this machine, and check its SHA-256."""
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with locks.locked(file.parent):
                # Only what is old: where the disk has no locks, others may be downloading.
                files.remove_abandoned(file.parent, rf"\..*{re.escape(files.PARTIAL)}")
                if not file.is_file():  # else another process has fetched it meanwhile
                    self._download(name, file)
        except OSError as error:
            raise BankError(
                f"Shards of {self.place} cannot be kept in {file.parent} ({error.strerror}): free "
                "some space, or name another folder by UNDERSTUDY_CACHE."
            ) from error

    def _download(self, name: str, file: Path) -> None:
        handle, path = mkstemp(prefix=f".{name}.", suffix=files.PARTIAL, dir=file.parent)
        os.close(handle)
        partial = Path(path)
        try:
            self.store.download(f"{_RECORDS}/{name}.bin", partial)
            with partial.open("rb") as content:
                digest = _digest(content)
            if digest[:32] != name.rpartition("-")[2]:
                raise BankError(
                    f"{self.place}/{_RECORDS}/{name}.bin is not what was written there: delete "
                    f"it and {_COMPLETE}/{name}.json, and build the bank again, which computes "
                    "the missing shard."
                )
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)


def _digest(content: Any) -> str:
    digest = sha256()
    while part := content.read(2**20):
        digest.update(part)
    return digest.hexdigest()


def _opened(
    store: Store, contract: Contract, division: Division | None
) -> tuple[Division, Contract]:
    """Return the division of a bank and its contract, with the scales that it was made with.

    It is made if there is none and its division is given.
    """
    stored = read_manifest(store)
    expected = {"layout": LAYOUT} | asdict(contract)
    del expected["num_views"]  # what is complete says how many there are
    if stored is None:
        if division is None:
            raise BankError(
                f"There is no bank in {store.place}, which is empty or does not exist: check "
                "bank.path, or build one with `understudy bank build`; training fills only banks "
                "in folders."
            )
        content = files.as_json(expected | {"shard": asdict(division)}, indent=1)
        store.publish(_MANIFEST, content.encode())
        return division, contract
    required: dict[str, Any] = expected | ({"shard": asdict(division)} if division else {})
    refuse_other(stored, required, store.place)
    try:
        return Division(**stored["shard"]), contract.as_stored(stored)
    except (KeyError, TypeError) as error:
        raise BankError(f"{store.place}/{_MANIFEST} is damaged: it has no 'shard'.") from error


def _complete(store: Store, division: Division, contract: Contract) -> dict[Shard, str]:
    """Return the shards that have a marker, with the digest of their content."""
    shards: dict[Shard, str] = {}
    for name in store.names(_COMPLETE):
        if (parsed := parse_name(name)) is None:
            continue
        shard, digest = parsed
        # Of two markers of one shard, the first by name. One of another division counts as none.
        if shard == division.at(shard.image, shard.view, contract):
            shards.setdefault(shard, digest)
    return shards


def missing(bank: Shards, shards: Sequence[Shard]) -> list[Shard]:
    """Return those of some shards that are not complete, as the store says now."""
    complete = _complete(bank.store, bank.division, bank.contract)
    return [shard for shard in shards if shard not in complete]
