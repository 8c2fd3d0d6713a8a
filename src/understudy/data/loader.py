"""The loader: batches of views, in an order that depends on seed and epoch alone."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress, islice
from typing import final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.utils.data import DataLoader

from understudy.batch import Batch, Mixed, Objects, labelled
from understudy.data._answers import Request, Response, ViewDataset, unchanged, unwrap
from understudy.data._balance import Pools
from understudy.data._order import (
    Pairs,
    balanced_order,
    grouped_order,
    labelled_share_order,
    shard_local_order,
    shuffled_order,
)
from understudy.data._workers import lost_workers_explained
from understudy.data.mixup import Blend, Mixing, mirrored_rows
from understudy.data.views import CLEAN, MemoryViews, Views
from understudy.errors import DataError, RecipeError

_NUMBERED = 256
"""Steps whose views are numbered in one call: hashing small batches one by one is slow, and those
of an epoch of a million images at once would take more memory than the images' names."""

_NO_PAIRS: Pairs = (torch.empty(0, dtype=torch.int64),) * 2


@final
class Loader:
    """Batches of an epoch, as a pure function of (seed, epoch).

    Any number of workers and processes, and a restart at any step, give the same images: global
    batch b is the same for every `world`, rank r takes its rows r, r + world, …, and its
    micro-batches are contiguous parts of those. With mixup or cutmix, rank r takes the pairs of
    mixed images r, r + world, …
    """

    def __init__(
        self,
        views: Views,
        labels: Int64[Tensor, "images ..."],
        *,
        batch: int,
        seed: int,
        shuffle: bool,
        portrait: Bool[Tensor, " images"] | None = None,
        labelled_share: float | None = None,
        balance: float = 0.0,
        shards: Int64[Tensor, " shards_and_one"] | None = None,
        shuffle_buffer: int = 0,
        mixing: Mixing | None = None,
        smoothing: float = 0.0,
        drop_last: bool = False,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        """Check that every process gets enough images.

        Args:
            views: Views of the images.
            labels: Class of every image, or a row of 1 (present), 0 (absent) for several classes;
                `UNLABELLED` (-1) where it is not known.
            batch: Images per optimizer step, over all processes.
            seed: Seed of the order.
            shuffle: Random order, without a last batch in which a micro-batch would hold fewer
                than two images; otherwise all images in the order of the source.
            portrait: True for every image that is higher than wide; random batches then hold
                images of one orientation. None ignores orientation.
            labelled_share: Share of labelled images in every batch, which are repeated within an
                epoch as often as needed; None shows every image once.
            balance: Exponent of class-balanced sampling: 0 shows every image equally often, 1 every
                class; see `_balance`.
            shards: Number of the first image of each shard, and of all images.
            shuffle_buffer: Images of `shards` among which each next one is drawn, where every image
                is shown once; 0 draws among all.
            mixing: Mixup and cutmix; None or false mixes nothing.
            smoothing: Share of every label that is spread over all classes.
            drop_last: Leave out the last batch if it is smaller than the others, as some of the
                papers do.
            accumulate: Micro-batches per optimizer step and process.
            rank: Number of this process.
            world: Number of processes.
            workers: Worker processes that decode images; not used for pixels in memory.

        Raises:
            DataError: There are too few images for a single step, or too few in a batch to mix.
            RecipeError: The smoothing is outside [0, 1).
        """
        self.views, self.labels = views, labels
        self.batch, self.seed, self.shuffle, self.portrait = batch, seed, shuffle, portrait
        self.labelled_share, self.mixing, self.smoothing = labelled_share, mixing, smoothing
        self.balance, self.drop_last = balance, drop_last
        self.shards, self.shuffle_buffer = shards, shuffle_buffer
        self.accumulate, self.rank, self.world, self.workers = accumulate, rank, world, workers
        self._ahead: _Ahead | None = None
        if drop_last and len(labels) < batch:
            raise DataError(
                f"There are {len(labels)} images and a batch is {batch}, so that "
                "training.drop_last leaves nothing: set it to false or training.batch lower."
            )
        if len(self) == 0:
            raise DataError(
                f"There are {len(labels)} images, too few for a batch in which {world} processes × "
                f"{accumulate} micro-batches get two images each; use more images."
            )
        if not 0 <= smoothing < 1:
            raise RecipeError(
                f"'training.label_smoothing' is {smoothing}; it must be at least 0 and below 1."
            )
        if mixing and batch < 2 * world * accumulate:
            raise DataError(
                f"A batch of {batch} images has too few pairs to mix for {world} processes × "
                f"{accumulate} micro-batches; use a batch of {2 * world * accumulate} or more."
            )

    def __len__(self) -> int:
        """Number of optimizer steps per epoch."""
        full, rest = divmod(len(self.labels), self.batch)
        if self.drop_last:
            return full
        if self.shuffle and self.labelled_share is None:
            # Each micro-batch needs two images: batch normalisation cannot train on one.
            return full + (rest >= 2 * self.world * self.accumulate)
        return full + (rest > 0)

    def epoch(self, number: int, *, start: int = 0) -> Iterator[list[Batch]]:
        """Yield the micro-batches of this process, step by step, from step `start` of an epoch."""
        index, view = self._order(number)
        self._ahead = ahead = _Ahead(self, index, view, start)
        blends, begun = self._blends(number), deque[tuple[list[Pairs], Blend | None]]()

        def requests() -> Iterator[Request]:
            for b, (step, numbered) in enumerate(self._steps(index, view, start), start):
                blend = blends[b] if blends else None
                begun.append((step, blend))
                for pair in numbered:
                    yield (*pair, blend)

        responses = iter(self._responses(requests()))
        for b in range(start, len(self)):
            if b == len(self) - 1 and not self._rows(len(index[b * self.batch :])):
                yield []  # the last batch has fewer images than there are processes
                return
            answers = [unwrap(next(responses))]
            step, blend = begun.popleft()
            answers += [unwrap(next(responses)) for _ in step[1:]]
            ahead.done += sum(len(part) for part, _ in step)
            pairs = zip(step, answers, strict=True)
            yield [self._batch(pair, blend, *answer) for pair, answer in pairs]

    def _steps(
        self, index: Tensor, view: Tensor, start: int
    ) -> Iterator[tuple[list[Pairs], list[Pairs]]]:
        """Yield the micro-batches of every step from `start`, and the same for `Views.show`."""
        for first in range(start, len(self), _NUMBERED):
            last = min(first + _NUMBERED, len(self))
            steps = [self._micro_batches(index, view, b) for b in range(first, last)]
            numbered = iter(self._numbered([pair for step in steps for pair in step]))
            for step in steps:
                yield step, list(islice(numbered, len(step)))

    def epoch_order(self, number: int) -> Pairs:
        """Return all views of an epoch over all processes, step by step: `(index, number)`.

        Views are numbered for `Views.show`.
        """
        index, view = self._order(number)
        count = min(len(index), len(self) * self.batch)
        return index[:count], self.views.number(index[:count], view[:count])

    def draws(self) -> dict[int, tuple[int, int]]:
        """Return class → its images, and how many an epoch shows where classes are balanced.

        Images that have a label and none of several classes are the class -1.
        """
        count = int(labelled(self.labels).sum())
        if self.labelled_share is not None:
            count = round(self.labelled_share * self.batch) * len(self)
        pools = Pools(self.labels, balance=self.balance, total=count)
        sizes = [len(images) for images in pools.images]
        return dict(zip(pools.classes, zip(sizes, pools.draws, strict=True), strict=True))

    def upcoming(self) -> Pairs:
        """Return the views of this process after the last step of `epoch`: `(index, number)`.

        Views are numbered for `Views.show`. None are left after the last step of an epoch.
        """
        return _NO_PAIRS if self._ahead is None else self._ahead.pairs()

    def single_pass(
        self,
        *,
        augmented: bool,
        stored: Callable[[Tensor, Tensor], bool] = lambda index, view: False,
    ) -> Iterator[Batch]:
        """Yield this process's share of all images once, in the order of the source.

        Args:
            augmented: Yield view 0 of each image; otherwise the clean view.
            stored: True for the `(index, view)` of a batch whose images are not needed, since its
                teacher outputs are stored: its `images` are an empty tensor `(batch, 3, 0, 0)`.
        """
        index = torch.arange(len(self.labels))
        view = torch.full_like(index, 0 if augmented else CLEAN)
        count = math.ceil(len(index) / self.batch)
        shares = [(self._share(index, b), self._share(view, b)) for b in range(count)]
        shares = [share for share in shares if len(share[0])]
        missing = [not stored(*share) for share in shares]
        needed = list(compress(shares, missing))
        batches = self._batches(needed, self._numbered(needed), [None] * len(needed))
        for share, is_missing in zip(shares, missing, strict=True):
            yield next(batches) if is_missing else self._without_images(*share)

    def show_batches(self, numbered: Sequence[Pairs]) -> Iterator[Batch]:
        """Yield batches with their objects, given by `(index, number)` for `Views.show`."""
        return self._batches(numbered, numbered, [None] * len(numbered))

    def show(self, numbered: Sequence[Pairs]) -> Iterator[Float[Tensor, "batch 3 size size"]]:
        """Yield batches of images, given by `(index, number)` for `Views.show`."""
        return (unwrap(x)[0] for x in self._responses([(*pair, None) for pair in numbered]))

    def _without_images(self, index: Tensor, view: Tensor) -> Batch:
        return Batch(torch.empty(len(index), 3, 0, 0), self.labels[index], index, view)

    def _order(self, epoch: int) -> Pairs:
        """Return image and view of every row of an epoch, over all processes."""
        if not self.shuffle:
            index = torch.arange(len(self.labels))
            return index, torch.tensor(epoch).expand(len(index))
        if self.labelled_share is None:
            order = self._whole_order(epoch)
            if self.portrait is None:
                return order
            return grouped_order(
                self.portrait, batch=self.batch, seed=self.seed, epoch=epoch, order=order
            )
        return labelled_share_order(
            self.labels,
            share=self.labelled_share,
            batch=self.batch,
            steps=len(self),
            seed=self.seed,
            epoch=epoch,
            balance=self.balance,
        )

    def _whole_order(self, epoch: int) -> Pairs:
        """Return as many images as there are, each once or by the balance of the classes."""
        if self.shards is not None and self.shuffle_buffer:
            return shard_local_order(
                self.shards, buffer=self.shuffle_buffer, seed=self.seed, epoch=epoch
            )
        if not self.balance:
            return shuffled_order(len(self.labels), seed=self.seed, epoch=epoch)
        return balanced_order(self.labels, balance=self.balance, seed=self.seed, epoch=epoch)

    def _share(self, x: Int64[Tensor, " images"], b: int) -> Int64[Tensor, " share"]:
        """Return this process's rows of batch `b`."""
        return x[b * self.batch : (b + 1) * self.batch][self.rank :: self.world]

    def _micro_batches(self, index: Tensor, view: Tensor, b: int) -> list[Pairs]:
        """Return the pairs of batch `b` for this process, one per micro-batch."""
        index, view = (x[b * self.batch : (b + 1) * self.batch] for x in (index, view))
        return [(index[rows], view[rows]) for rows in self._rows(len(index))]

    def _rows(self, batch: int) -> list[Int64[Tensor, " rows"]]:
        """Return the rows of a batch that this process takes, one tensor per micro-batch."""
        if self.mixing:
            return mirrored_rows(batch, rank=self.rank, world=self.world, parts=self.accumulate)
        rows = torch.arange(batch)[self.rank :: self.world]
        return [part for part in rows.tensor_split(self.accumulate) if len(part)]

    def _blends(self, epoch: int) -> Sequence[Blend]:
        """Return the blend of every step of an epoch; none if nothing is mixed."""
        if not self.mixing:
            return []
        return self.mixing.blends(self.views.size, seed=self.seed, epoch=epoch, steps=len(self))

    def _batches(
        self, pairs: Sequence[Pairs], numbered: Sequence[Pairs], blends: Sequence[Blend | None]
    ) -> Iterator[Batch]:
        """Yield the batches of `(index, view)` pairs, whose views `_numbered` has numbered."""
        requests = [(*pair, blend) for pair, blend in zip(numbered, blends, strict=True)]
        for (index, view), blend, (images, objects) in zip(
            pairs, blends, map(unwrap, self._responses(requests)), strict=True
        ):
            yield self._batch((index, view), blend, images, objects)

    def _batch(
        self, pair: Pairs, blend: Blend | None, images: Tensor, objects: Objects | None
    ) -> Batch:
        labels, mixed = self.labels[pair[0]], None
        if blend is not None:
            mixed = Mixed(labels.flip(0), torch.full(labels.shape, blend.share))
        batch = Batch(images, labels, *pair, mixed, self.smoothing, objects)
        return batch.to(images.device, torch.preserve_format)

    def _numbered(self, pairs: Sequence[Pairs]) -> list[Pairs]:
        """Replace view numbers by numbers for `Views.show`."""
        # All batches in one call: hashing small batches one by one is slow.
        index, view = _concatenated(pairs)
        sizes = [len(rows) for rows, _ in pairs]
        numbers = torch.split(self.views.number(index, view), sizes)
        return list(zip(torch.split(index, sizes), numbers, strict=True))

    def _responses(self, requests: Iterable[Request]) -> Iterable[Response]:
        """Answer requests in order: in this process, or in worker processes if there are any."""
        dataset = ViewDataset(self.views.show)
        if self.workers == 0 or isinstance(self.views, MemoryViews):
            return map(dataset.__getitem__, requests)
        return self._from_workers(dataset, requests)

    def _from_workers(
        self, dataset: "ViewDataset", requests: Iterable[Request]
    ) -> Iterator[Response]:
        """Yield answers of worker processes; `DataError` if one of them was killed."""
        # As bytes: tensors are sent in shared memory, and where that is full the queue drops them.
        packed = ((index.numpy(), number.numpy(), blend) for index, number, blend in requests)
        loader = DataLoader(
            dataset,
            sampler=packed,
            batch_size=None,
            # The default makes tensors of bytes.
            collate_fn=unchanged,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            # Without this, DataLoader would advance torch's global generator.
            generator=torch.Generator(),
        )
        with lost_workers_explained():
            yield from loader


@final
class _Ahead:
    """Views of an epoch that are still to come, numbered when they are first asked for."""

    def __init__(self, loader: Loader, index: Tensor, view: Tensor, start: int) -> None:
        self._loader, self._index, self._view, self._start = loader, index, view, start
        self._pairs: Pairs | None = None
        self.done = 0

    def pairs(self) -> Pairs:
        if self._pairs is None:
            steps = self._loader._steps(self._index, self._view, self._start)
            self._pairs = _concatenated([pair for _, numbered in steps for pair in numbered])
        images, numbers = self._pairs
        return images[self.done :], numbers[self.done :]


def _concatenated(pairs: Sequence[Pairs]) -> Pairs:
    if not pairs:
        return _NO_PAIRS
    first, second = (torch.cat(rows) for rows in zip(*pairs, strict=True))
    return first, second
