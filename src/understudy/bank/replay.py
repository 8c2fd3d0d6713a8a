"""A teacher whose outputs come from a bank, and are stored there when they are not in it yet."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from understudy.bank._bank import Bank
from understudy.batch import Batch
from understudy.data import CLEAN, Views
from understudy.distillation.distiller import Teacher
from understudy.features import Features
from understudy.methods import Method

Index = Int64[Tensor, " batch"]
Missing = Bool[Tensor, " batch"]
Images = Float[Tensor, "batch 3 height width"]
Places = tuple[Index, Index]
NOTHING: Places = (torch.empty(0, dtype=torch.int64),) * 2

_AHEAD = 64
"""How many views to come are looked at for one that is not stored."""


@final
class Codes:
    """What methods compute of the stored features alone, each method's in a bank beside them.

    Args:
        bank: Where the features are stored.
        methods: Label → method.
    """

    def __init__(self, bank: Bank, methods: Mapping[str, Method]) -> None:
        self.bank = bank
        self.methods = {label: method for label, method in methods.items() if method.code_buffers}
        self._banks: dict[str, Bank] = {}

    @torch.no_grad()
    def __call__(self, index: Index, number: Index, stored: Features) -> Features:
        """`<label>/<code>` → codes, of features as the bank gives them back.

        None before every method has measured the teacher, which its codes may depend on.
        """
        if not all(method.prepared for method in self.methods.values()):
            return {}
        return {
            f"{label}/{name}": code
            for label, method in self.methods.items()
            for name, code in self._of(label, method, index, number, stored).items()
        }

    def _of(
        self, label: str, method: Method, index: Index, number: Index, stored: Features
    ) -> Features:
        if label not in self._banks:
            shapes = {name: tuple(x.shape[1:]) for name, x in method.codes(stored).items()}
            if not shapes:
                return {}
            self._banks[label] = self._opened(label, method, shapes)
        bank = self._banks[label]
        missing = ~bank.has(index, number)
        if missing.any():
            met = {name: x.cpu()[missing] for name, x in method.codes(stored).items()}
            bank.write(index[missing], number[missing], met)
        return bank.read(index, number)

    def _opened(self, label: str, method: Method, shapes: dict[str, tuple[int, ...]]) -> Bank:
        source = self.bank.contract
        digest = sha256(repr((replace(source, num_views=0), type(method).__qualname__)).encode())
        for name in method.code_buffers:
            digest.update(
                method.get_buffer(name).flatten().cpu().view(torch.uint8).numpy().tobytes()
            )
        name = f"{label}-{digest.hexdigest()[:12]}"
        made_of = f"{source.teacher}, codes of {name}"
        contract = replace(source, teacher=made_of, features=shapes, dtype="bits", top_logits=None)
        return Bank(self.bank.path / name, contract)


@final
class Replay:
    """Features of a batch, read from a bank; a view that is met for the first time is stored.

    The teacher always runs on as many images as the batch has: on what is missing of it, and in the
    place of the others on what will be missing of the batches to come. Its numbers are then those
    it would have given without a bank, and it runs no oftener than there are new views.

    Args:
        teacher: Gives what is not stored.
        bank: Where outputs are stored.
        views: Tells which place in the bank a view has.
        codes: What methods compute of the outputs, if that is stored too.
        coming: Gives what will be shown, `(index, number)`, as `Loader.upcoming`.

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
        coming: Callable[[], Places] = lambda: NOTHING,
    ) -> None:
        self.teacher, self.bank, self.views = teacher, bank, views
        self.codes, self.coming = codes, coming
        self.seconds = 0.0

    def __call__(self, batch: Batch) -> Features:
        """Features of the teacher, on the device of the batch."""
        index, view = batch.index.cpu(), batch.view.cpu()
        number = place(self.views, index, view)
        if not self._has_place(number):
            return self._live(batch.images)
        missing = ~self.bank.has(index, number)
        if missing.any():
            self._meet(batch.images, index, number, missing)
        device = batch.images.device
        stored = {name: x.to(device) for name, x in self.bank.read(index, number).items()}
        if self.codes is None:
            return stored
        codes = self.codes(index, number, stored)
        return stored | {name: x.to(device) for name, x in codes.items()}

    def _meet(self, images: Images, index: Index, number: Index, missing: Missing) -> None:
        """Store what is missing of a batch, and what else the teacher can be asked at once."""
        if missing.all():
            self.bank.write(index, number, self._on_cpu(images))
            return
        spare = int((~missing).sum())
        later = self._later(spare)
        more = [self._shown(later).to(images.device)] if len(later[0]) else []
        again = images[~missing][: spare - len(later[0])]
        # In the memory layout of the batch, on which rounding depends.
        rows = torch.cat([images[missing], *more, again], out=torch.empty_like(images))
        features = self._on_cpu(rows)
        met = torch.cat([index[missing], later[0]]), torch.cat([number[missing], later[1]])
        self.bank.write(*met, {name: x[: len(met[0])] for name, x in features.items()})

    def _later(self, count: int) -> Places:
        """At most `count` of the views to come that are not stored."""
        if self.views.count is None:  # all views of an epoch are new, or none is
            return NOTHING
        index, number = (x[: _AHEAD * count] for x in self.coming())
        absent = (~self.bank.has(index, number)).nonzero().flatten()[:count]
        return index[absent], number[absent]

    def _shown(self, places: Places) -> Images:
        shown = self.views.show(*places)
        assert isinstance(shown, Tensor)  # nothing is stored of images with boxes
        return shown

    def _on_cpu(self, images: Images) -> Features:
        return {name: x.cpu() for name, x in self._live(images).items()}

    def holds(self, index: Index, view: Index) -> bool:
        """Whether all of some views are stored, so that nobody needs their images."""
        number = place(self.views, index, view)
        return self._has_place(number) and bool(self.bank.has(index, number).all())

    def _has_place(self, number: Index) -> bool:
        return bool(((number >= 0) & (number < self.bank.contract.num_views)).all())

    def _live(self, images: Float[Tensor, "batch 3 height width"]) -> Features:
        started = time.perf_counter()
        features: Features = self.teacher(images)
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
        self.seconds += time.perf_counter() - started
        return features


def place(views: Views, index: Index, view: Index) -> Index:
    """Which view in the bank a view of each image is.

    Where views are few, each has its place; else the clean one is first, before view 0.
    """
    number = views.number(index, view)
    return number if views.count else number - CLEAN


def numbers(views: Views, place: Index) -> Index:
    """The number by which `Views.show` knows what has a `place` in the bank."""
    return place if views.count else place + CLEAN
