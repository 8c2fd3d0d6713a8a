"""Features read from a bank in place of the teacher, and stored there when they are missing."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import final

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from understudy.bank._bank import Bank, RecordsDropped
from understudy.bank._table import Table
from understudy.batch import Batch
from understudy.data import CLEAN, Views
from understudy.distillation.distiller import Teacher
from understudy.features import Features
from understudy.methods import Method

Numbers = Int64[Tensor, " batch"]
RecordKeys = tuple[Numbers, Numbers]
"""Image numbers, and for each image the number of a view, as the bank counts views."""

NO_RECORDS: RecordKeys = (torch.empty(0, dtype=torch.int64),) * 2

_LOOK_AHEAD = 64
"""Upcoming views that are searched for each one that is to be added to a forward pass."""


@final
class Codes:
    """Codes that methods compute from stored features alone, each method's in a bank of its own.

    Args:
        bank: Where the features are stored; the banks of codes are folders in its directory.
        methods: Label → method.
    """

    def __init__(self, bank: Bank, methods: Mapping[str, Method]) -> None:
        self.bank = bank
        self.methods = {label: method for label, method in methods.items() if method.code_buffers}
        self._banks: dict[str, Table] = {}

    @torch.no_grad()
    def __call__(self, index: Numbers, number: Numbers, stored: Features) -> Features:
        """Return `<label>/<code>` → codes of features as the bank returns them.

        Empty until every method has measured the teacher, on which its codes may depend.
        """
        if not all(method.prepared for method in self.methods.values()):
            return {}
        return {
            f"{label}/{name}": code
            for label, method in self.methods.items()
            for name, code in self._of(label, method, index, number, stored).items()
        }

    def _of(
        self, label: str, method: Method, index: Numbers, number: Numbers, stored: Features
    ) -> Features:
        if label not in self._banks:
            shapes = {name: tuple(x.shape[1:]) for name, x in method.codes(stored).items()}
            if not shapes:
                return {}
            self._banks[label] = self._open(label, method, shapes)
        bank = self._banks[label]

        def store_missing() -> None:
            missing = ~bank.has(index, number)
            if missing.any():
                codes = {name: x.cpu()[missing] for name, x in method.codes(stored).items()}
                bank.write(index[missing], number[missing], codes)

        return _read_or_store(bank, index, number, store_missing)

    def _open(self, label: str, method: Method, shapes: dict[str, tuple[int, ...]]) -> Table:
        """Open the bank of a method's codes, whose name tells all that the codes depend on."""
        source = self.bank.contract
        # Without the number of views, which is the one thing that may change: a bank grows.
        digest = sha256(repr((replace(source, num_views=0), type(method).__qualname__)).encode())
        for name in method.code_buffers:
            buffer = method.get_buffer(name).flatten().cpu()
            digest.update(buffer.view(torch.uint8).numpy().tobytes())
        name = f"{label}-{digest.hexdigest()[:12]}"
        teacher = f"{source.teacher}, codes of {name}"
        contract = replace(source, teacher=teacher, features=shapes, dtype="bits", top_logits=None)
        return Table(self.bank.folder / name, contract)


@final
class Replay:
    """Reads the features of a batch from a bank; a view that is met for the first time is stored.

    The teacher always runs on as many images as the batch has: on those that are not stored, and in
    place of the others on upcoming ones. Its outputs are then the ones it would give without a bank
    (another batch size could round differently), and it never runs more often than it has to. Of
    processes that meet the same views at the same time, one computes them and the others wait.

    Args:
        teacher: Computes what is not stored.
        bank: Where features are stored.
        views: Views of the images; maps their numbers to those of the bank.
        codes: Codes that are stored beside the features, if any are.
        clean: The bank has one view of each image, the clean one.
        upcoming: Gives the image and view numbers of later batches, as `Loader.upcoming`.

    Attributes:
        seconds: Spent in the live teacher so far, waiting for its device included.
    """

    def __init__(
        self,
        teacher: Teacher,
        bank: Bank,
        views: Views,
        *,
        codes: Codes | None = None,
        clean: bool = False,
        upcoming: Callable[[], RecordKeys] = lambda: NO_RECORDS,
    ) -> None:
        self.teacher, self.bank, self.views = teacher, bank, views
        self.codes, self.clean, self.upcoming = codes, clean, upcoming
        self.seconds = 0.0

    def __call__(self, batch: Batch) -> Features:
        """Return the teacher's features, and codes if there are any, on the device of the batch."""
        index, view = batch.index.cpu(), batch.view.cpu()
        number = self._number(index, view)

        def store(table: Table, missing: Bool[Tensor, " batch"]) -> None:
            self._store_missing(table, batch, (index, number), missing)

        features = read_or_compute(self.bank, index, number, store)
        if features is None:
            return self._live(batch)
        device = batch.images.device
        stored = {name: x.to(device) for name, x in features.items()}
        if self.codes is None:
            return stored
        codes = self.codes(index, number, stored)
        return stored | {name: x.to(device) for name, x in codes.items()}

    def holds(self, index: Numbers, view: Numbers) -> bool:
        """Return True if all of some views are stored, so that their images are not needed."""
        number = self._number(index, view)
        return _in_range(self.bank, number) and self.bank.intact(index, number)

    def _number(self, index: Numbers, view: Numbers) -> Numbers:
        if self.clean:
            return view - CLEAN
        return bank_number(self.views, index, view)

    def _store_missing(
        self, table: Table, batch: Batch, keys: RecordKeys, missing: Bool[Tensor, " batch"]
    ) -> None:
        """Store the missing views of a batch, and upcoming ones as far as one pass has room."""
        images, (index, number) = batch.images, keys
        if missing.all():
            table.write(index, number, self._live_on_cpu(batch))
            return
        room = int((~missing).sum())
        later = self._missing_later(table, room)
        more = [self._shown(later).to(images.device)] if len(later[0]) else []
        # Images that are stored already fill up the pass, and their features are not kept.
        repeated = images[~missing][: room - len(later[0])]
        # In the memory layout of the batch, on which rounding depends.
        rows = torch.cat([images[missing], *more, repeated], out=torch.empty_like(images))
        features = self._live_on_cpu(Batch.of(rows))
        keys = torch.cat([index[missing], later[0]]), torch.cat([number[missing], later[1]])
        table.write(*keys, {name: x[: len(keys[0])] for name, x in features.items()})

    def _missing_later(self, table: Table, count: int) -> RecordKeys:
        """Return at most `count` upcoming views that no process has stored, or computes."""
        if self.views.count is None:  # all views of an epoch are new, or none is
            return NO_RECORDS
        index, number = (x[: _LOOK_AHEAD * count] for x in self.upcoming())
        absent = (~self.bank.has(index, number)).nonzero().flatten()[:count]
        index, number = index[absent], number[absent]
        free = table.claim_free(index, number)
        index, number = index[free], number[free]
        # Another process may have computed them just before.
        absent = ~self.bank.has(index, number)
        return index[absent], number[absent]

    def _shown(self, keys: RecordKeys) -> Tensor:
        images = self.views.show(*keys)
        assert isinstance(images, Tensor)  # nothing is stored of images with boxes
        return images

    def _live_on_cpu(self, batch: Batch) -> Features:
        features = {name: x.cpu() for name, x in self._live(batch).items()}
        self.teacher.refuse_not_finite(features)
        return features

    def _live(self, batch: Batch) -> Features:
        started = time.perf_counter()
        features: Features = self.teacher(batch)
        # A GPU returns before it has computed, and `seconds` counts its work.
        if batch.images.is_cuda:
            torch.cuda.synchronize(batch.images.device)
        self.seconds += time.perf_counter() - started
        return features


def _read_or_store(
    bank: Bank, index: Numbers, number: Numbers, store_missing: Callable[[], None]
) -> Features:
    """Return stored features after storing those that are missing, or damaged."""
    store_missing()
    try:
        return bank.read(index, number)
    except RecordsDropped:
        store_missing()
        return bank.read(index, number)


def read_or_compute(
    bank: Bank,
    index: Numbers,
    number: Numbers,
    store: Callable[[Table, Bool[Tensor, " batch"]], None],
) -> Features | None:
    """Return stored features after storing those that are missing; None if they cannot be stored.

    Beyond `bank.views` of an image nothing is stored. Nor is anything added to a bank in shards, of
    which one may be missing. Of processes that miss the same records at the same time, one stores
    them and the others wait.

    Args:
        bank: The bank.
        index: Image numbers.
        number: For each image the number of a view.
        store: Given the bank, and which of the records are missing, computes and writes these.
    """
    if not _in_range(bank, number):
        return None
    if not isinstance(bank, Table):
        return bank.read(index, number) if bank.has(index, number).all() else None
    table = bank

    def store_missing() -> None:
        missing = ~table.has(index, number)
        if not missing.any():
            return
        with table.claimed(index[missing], number[missing]):
            # Another process may have computed them while this one waited.
            missing = ~table.has(index, number)
            if missing.any():
                store(table, missing)

    return _read_or_store(table, index, number, store_missing)


def _in_range(bank: Bank, number: Numbers) -> bool:
    """Return True if a bank has a place for all of some views."""
    return bool(((number >= 0) & (number < bank.contract.num_views)).all())


def bank_number(views: Views, index: Numbers, view: Numbers) -> Numbers:
    """Return the number under which a bank stores a view of each image.

    Where an image has finitely many views it is that of `Views.number`. Otherwise the clean view is
    number 0, and view v is number v + 1.
    """
    number = views.number(index, view)
    return number if views.count else number - CLEAN


def shown_number(views: Views, number: Numbers) -> Numbers:
    """Return the number by which `Views.show` knows what a bank stores under `number`."""
    return number if views.count else number + CLEAN
