"""Maps of a teaching detector read from a bank, and stored there when they are missing."""

import time
from collections.abc import Sequence
from typing import cast, final

import torch
from jaxtyping import Bool
from torch import Tensor

from understudy.bank._bank import Bank
from understudy.bank._table import Table
from understudy.bank.maps import MapBank
from understudy.bank.replay import Numbers, bank_number, read_or_compute
from understudy.batch import Batch
from understudy.data import Views
from understudy.distillation.stored_maps import StoredMaps, maps_alone
from understudy.distillation.teacher import Teacher
from understudy.errors import BankError
from understudy.features import Features
from understudy.models.base import Wrapped
from understudy.models.detection import Detector, Resizing, images_of


@final
class MapReplay:
    """Reads the maps of a batch from a bank; a view that is met for the first time is stored.

    Where the bank has no place for a view, or is in shards and misses it, the teacher runs on the
    image as it would for the bank: alone, without the padding of its batch.

    Args:
        teacher: Computes what is not stored, and reads features from maps.
        student: Resizes the images.
        bank: Where maps are stored.
        views: Views of the images; maps their numbers to those of the bank.

    Attributes:
        seconds: Spent in the live teacher so far, waiting for its device included.
    """

    def __init__(self, teacher: Teacher, student: Wrapped, bank: MapBank, views: Views) -> None:
        self.teacher, self.student, self.bank, self.views = teacher, student, bank, views
        self.seconds = 0.0
        self._resizing = Resizing(cast(Detector, student).module.transform)

    def __call__(self, batch: Batch) -> StoredMaps:
        """Return the maps of the images of a batch, on its device."""
        index, view = batch.index.cpu(), batch.view.cpu()
        number, images = bank_number(self.views, index, view), images_of(batch)
        canvases, maps = self.bank.canvases, [Features() for _ in images]
        groups = canvases.of_image[index]
        for group in sorted(set(groups.tolist())):
            rows = (groups == group).nonzero().flatten()
            self._check_sizes([images[i] for i in rows.tolist()], canvases.sizes[group])
            keys = canvases.position[index[rows]], number[rows]
            read = self._read(self.bank.banks[group], *keys, [images[i] for i in rows.tolist()])
            for place, row in enumerate(rows.tolist()):
                maps[row] = {name: x[place] for name, x in read.items()}
        return StoredMaps(self.teacher, maps, self._placed(self.bank.padding))

    def _check_sizes(self, images: Sequence[Tensor], canvas: tuple[int, int]) -> None:
        """Refuse views of another size than their image, for which the bank has no place."""
        for image in images:
            height, width = image.shape[1:]
            if self._resizing.canvas(height, width) != canvas:
                raise BankError(
                    f"A view of {height} × {width} pixels has not the size of its image: a bank of "
                    "a detector's maps has no place for it. Leave bank.path out, or the transform "
                    "of data.transforms that changes sizes."
                )

    def compute(self, images: Sequence[Tensor]) -> Features:
        """Return the teacher's maps of images that are padded to one size.

        Raises:
            NetworkError: The teacher gives NaN or infinity.
        """
        started = time.perf_counter()
        maps = maps_alone(self.teacher, self.student, images)
        self.teacher.refuse_not_finite(maps)  # waits for the device, whose time counts
        self.seconds += time.perf_counter() - started
        return maps

    def _read(
        self, bank: Bank, index: Numbers, number: Numbers, images: Sequence[Tensor]
    ) -> Features:
        def store(table: Table, missing: Bool[Tensor, " batch"]) -> None:
            chosen = [images[i] for i in missing.nonzero().flatten().tolist()]
            table.write(index[missing], number[missing], self.compute(chosen))

        maps = read_or_compute(bank, index, number, store)
        return self.compute(images) if maps is None else self._placed(maps)

    def _placed(self, maps: Features) -> Features:
        """Return stored maps on the device and in the precision of the teacher."""
        device = self.teacher.network.device
        dtype = self.teacher.precision or torch.float32
        return {name: x.to(device, dtype) for name, x in maps.items()}
