"""Parts of a bank: its tables of records, each with what computes them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from understudy.bank import BATCH, Bank
from understudy.bank.map_replay import MapReplay
from understudy.bank.replay import RecordKeys, Replay, shown_number
from understudy.batch import Batch
from understudy.data import Loader
from understudy.distillation.memory_parts import MemoryParts
from understudy.features import Features
from understudy.models.detection import images_of

_MAPS_AT_ONCE = 8
"""Images of which a detector computes the maps at once."""


@dataclass(frozen=True)
class BankPart:
    """One table of a bank, with what computes its records.

    Attributes:
        bank: The table, or shards of it.
        compute: Given the numbers of records, yields the teacher's features of each batch.
        batch: Images that the teacher computes at once.
    """

    bank: Bank
    compute: Callable[[Sequence[RecordKeys]], Iterator[Features]]
    batch: int

    def batches(self, index: Tensor, number: Tensor) -> list[RecordKeys]:
        """Return the numbers of some records in parts that the teacher computes at once."""
        parts = zip(torch.split(index, self.batch), torch.split(number, self.batch), strict=True)
        return [part for part in parts if len(part[0])]


def parts_of(replay: Replay | MapReplay, loader: Loader) -> list[BankPart]:
    """Return the tables of a bank: one, or of a detector's maps one for each size of images."""
    if isinstance(replay, Replay):
        return [BankPart(replay.bank, partial(_features, replay, loader), BATCH)]
    canvases = replay.bank.canvases
    return [
        BankPart(bank, partial(_maps, replay, loader, canvases.images(number)), _MAPS_AT_ONCE)
        for number, bank in enumerate(replay.bank.banks)
    ]


def _features(replay: Replay, loader: Loader, keys: Sequence[RecordKeys]) -> Iterator[Features]:
    """Yield the teacher's features of whole images.

    Raises:
        NetworkError: The teacher gives NaN or infinity.
        OutOfMemory: Not even one image fits into memory.
    """
    device = replay.teacher.network.device
    in_parts = MemoryParts("computing records of the bank")
    views = [(index, shown_number(replay.views, number)) for index, number in keys]
    for images in loader.show(views):
        parts = list(in_parts(Batch.of(images.to(device)), replay.teacher))
        features = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        replay.teacher.refuse_not_finite(features)
        yield features


def _maps(
    replay: MapReplay, loader: Loader, images: Tensor, keys: Sequence[RecordKeys]
) -> Iterator[Features]:
    """Yield the maps of images of one size, which `keys` count among those of that size.

    Raises:
        NetworkError: The teacher gives NaN or infinity.
        OutOfMemory: Not even one image fits into memory.
    """
    device = replay.teacher.network.device
    in_parts = MemoryParts("computing records of the bank")
    views = [(images[place], shown_number(replay.views, number)) for place, number in keys]
    for batch in loader.show_batches(views):
        on_device = batch.to(device, torch.contiguous_format)
        parts = list(in_parts(on_device, lambda part: replay.compute(images_of(part))))
        yield {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
