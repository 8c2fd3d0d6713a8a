"""The loader: which images come in which batch, on which process, in which view."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress, islice
from typing import final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from understudy.batch import Batch, Mixed, Objects
from understudy.data._order import Pairs, grouped, mixed, plain
from understudy.data.mixup import Blend, Mixing, mirrored
from understudy.data.views import CLEAN, MemoryViews, Shown, Views
from understudy.errors import DataError, RecipeError, UnderstudyError

Show = Callable[[Tensor, Tensor], Shown]
"""Images by two numbers each."""


_Asked = tuple[Tensor, Tensor, Blend | None]
"""Images by two numbers each, and how they are mixed."""

_Given = tuple[Tensor, Objects | None] | UnderstudyError
"""Images with their objects, if these are asked for; or why there are none."""

_NOTHING: Pairs = (torch.empty(0, dtype=torch.int64),) * 2


@final
class Loader:
    """Batches of an epoch, as a pure function of (seed, epoch).

    Any worker count, any process count and a restart anywhere give the same images: global batch
    b is the same for every `world`, rank r takes its rows r, r + world, …, and its micro-batches
    are contiguous parts of those. Where images are mixed, it takes both rows of the pairs
    r, r + world, …
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
        mixing: Mixing | None = None,
        smoothing: float = 0.0,
        drop_last: bool = False,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        """A loader of all images that have a place in `labels`.

        Args:
            views: What shows the images.
            labels: Class of every image, or whether it has each of some classes; `UNLABELLED` (-1)
                where it is not known.
            batch: Images per optimizer step, over all processes.
            seed: Seed of the order.
            shuffle: Random order, and a last batch too small for every micro-batch to hold two
                images is left out; otherwise all images in their own order.
            portrait: Which images are higher than wide, and share random batches with their like.
            labelled_share: Share of labelled images in every batch, which are repeated within an
                epoch as often as that needs; None takes all images as they come.
            mixing: How the images of an epoch are mixed with each other, if they are.
            smoothing: Share of every label that is spread over all classes.
            drop_last: Leave out the last batch if it is smaller than the others, as some of the
                papers do.
            accumulate: Micro-batches per optimizer step and process.
            rank: Number of this process.
            world: How many processes there are.
            workers: Processes that decode image files; pixels in memory need none.

        Raises:
            DataError: There are too few images for a single step, or to mix in a batch.
            RecipeError: A smoothing outside of [0, 1).
        """
        self.views, self.labels = views, labels
        self.batch, self.seed, self.shuffle, self.portrait = batch, seed, shuffle, portrait
        self.labelled_share, self.mixing, self.smoothing = labelled_share, mixing, smoothing
        self.drop_last = drop_last
        self.accumulate, self.rank, self.world, self.workers = accumulate, rank, world, workers
        self._upcoming = _NOTHING
        if drop_last and len(labels) < batch:
            raise DataError(
                f"There are {len(labels)} images and a batch is {batch}, so that "
                "training.drop_last leaves nothing: set it to false or training.batch lower."
            )
        if len(self) == 0:
            raise DataError(
                f"There are {len(labels)} images, too few for a batch on which {world} processes × "
                f"{accumulate} micro-batches see two images each; give more images."
            )
        if not 0 <= smoothing < 1:
            raise RecipeError(
                f"'training.label_smoothing' is {smoothing}; it must be at least 0 and below 1."
            )
        if mixing and batch < 2 * world * accumulate:
            raise DataError(
                f"A batch of {batch} images has no pair to mix for each of {world} processes × "
                f"{accumulate} micro-batches; use a batch of {2 * world * accumulate} or more."
            )

    def __len__(self) -> int:
        """Optimizer steps per epoch."""
        full, rest = divmod(len(self.labels), self.batch)
        if self.drop_last:
            return full
        if self.shuffle and self.labelled_share is None:
            # Batch normalisation cannot train on a single image.
            return full + (rest >= 2 * self.world * self.accumulate)
        return full + (rest > 0)

    def epoch(self, number: int, *, start: int = 0) -> Iterator[list[Batch]]:
        """The steps of an epoch from step `start`: of each, the micro-batches of this process."""
        index, view = self._order(number)
        steps = [self._micro_batches(index, view, b) for b in range(start, len(self))]
        pairs = [pair for step in steps for pair in step]
        drawn = zip(steps, self._blends(number)[start:], strict=True)
        blends = [blend for step, blend in drawn for _ in step]
        places = self._places(pairs)
        batches, (rows, numbers) = self._shown(pairs, places, blends), _joined(places)
        given = 0
        for step in steps:
            given += sum(len(part) for part, _ in step)
            self._upcoming = rows[given:], numbers[given:]
            yield list(islice(batches, len(step)))

    def epoch_order(self, number: int) -> Pairs:
        """All that one process shows in an epoch, one step after the other: `(index, number)`."""
        index, view = self._order(number)
        count = min(len(index), len(self) * self.batch)
        return index[:count], self.views.number(index[:count], view[:count])

    def upcoming(self) -> Pairs:
        """What this process will show in this epoch after the step given last: `(index, number)`.

        Views are numbered as `Views.show` knows them.
        """
        return self._upcoming

    def single_pass(
        self,
        *,
        augmented: bool,
        stored: Callable[[Tensor, Tensor], bool] = lambda index, view: False,
    ) -> Iterator[Batch]:
        """This process's share of all images, each once and in order: in its view 0, or clean.

        A batch of which `stored(index, view)` is true is not shown: its images are an empty tensor
        `(batch, 3, 0, 0)`.
        """
        index = torch.arange(len(self.labels))
        view = torch.full_like(index, 0 if augmented else CLEAN)
        count = math.ceil(len(index) / self.batch)
        shares = [(self._share(index, b), self._share(view, b)) for b in range(count)]
        shares = [share for share in shares if len(share[0])]
        missing = [not stored(*share) for share in shares]
        needed = list(compress(shares, missing))
        shown = self._shown(needed, self._places(needed), [None] * len(needed))
        for share, unknown in zip(shares, missing, strict=True):
            yield next(shown) if unknown else self._unseen(*share)

    def show(self, places: Sequence[Pairs]) -> Iterator[Float[Tensor, "batch 3 size size"]]:
        """The views that have some places, `(index, number)` as `Views.show` knows them."""
        return (_checked(x)[0] for x in self._images([(*place, None) for place in places]))

    def _unseen(self, index: Tensor, view: Tensor) -> Batch:
        return Batch(torch.empty(len(index), 3, 0, 0), self.labels[index], index, view)

    def _order(self, epoch: int) -> Pairs:
        if not self.shuffle:
            index = torch.arange(len(self.labels))
            return index, torch.full_like(index, epoch)
        if self.labelled_share is None:
            if self.portrait is not None:
                return grouped(self.portrait, batch=self.batch, seed=self.seed, epoch=epoch)
            return plain(len(self.labels), seed=self.seed, epoch=epoch)
        return mixed(
            self.labels,
            share=self.labelled_share,
            batch=self.batch,
            steps=len(self),
            seed=self.seed,
            epoch=epoch,
        )

    def _share(self, x: Int64[Tensor, " images"], b: int) -> Int64[Tensor, " share"]:
        return x[b * self.batch : (b + 1) * self.batch][self.rank :: self.world]

    def _micro_batches(self, index: Tensor, view: Tensor, b: int) -> list[Pairs]:
        index, view = (x[b * self.batch : (b + 1) * self.batch] for x in (index, view))
        return [(index[rows], view[rows]) for rows in self._rows(len(index))]

    def _rows(self, batch: int) -> list[Int64[Tensor, " rows"]]:
        """Places in a batch that this process takes, one tensor for each of its micro-batches."""
        if self.mixing:
            return mirrored(batch, rank=self.rank, world=self.world, parts=self.accumulate)
        rows = torch.arange(batch)[self.rank :: self.world]
        return [part for part in rows.tensor_split(self.accumulate) if len(part)]

    def _blends(self, epoch: int) -> Sequence[Blend | None]:
        """How every step of an epoch is mixed."""
        if not self.mixing:
            return [None] * len(self)
        return self.mixing.blends(self.views.size, seed=self.seed, epoch=epoch, steps=len(self))

    def _shown(
        self, pairs: Sequence[Pairs], places: Sequence[Pairs], blends: Sequence[Blend | None]
    ) -> Iterator[Batch]:
        shown = self._images([(*place, b) for place, b in zip(places, blends, strict=True)])
        for (index, view), blend, (images, objects) in zip(
            pairs, blends, map(_checked, shown), strict=True
        ):
            labels, mixed = self.labels[index], None
            if blend is not None:
                mixed = Mixed(labels.flip(0), torch.full(labels.shape, blend.share))
            batch = Batch(images, labels, index, view, mixed, self.smoothing, objects)
            yield batch.to(images.device, torch.preserve_format)

    def _places(self, pairs: Sequence[Pairs]) -> list[Pairs]:
        """The pairs with the number of each view, all at once: small batches are slow to hash."""
        index, view = _joined(pairs)
        sizes = [len(rows) for rows, _ in pairs]
        numbers = torch.split(self.views.number(index, view), sizes)
        return list(zip(torch.split(index, sizes), numbers, strict=True))

    def _images(self, asked: Sequence[_Asked]) -> Iterable[_Given]:
        shown = _Images(self.views.show)
        if self.workers == 0 or isinstance(self.views, MemoryViews):
            return map(shown.__getitem__, asked)
        return DataLoader(
            shown,
            sampler=asked,
            batch_size=None,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            # Without one of its own, DataLoader draws from the global generator.
            generator=torch.Generator(),
        )


def _joined(pairs: Sequence[Pairs]) -> Pairs:
    if not pairs:
        return _NOTHING
    first, second = (torch.cat(rows) for rows in zip(*pairs, strict=True))
    return first, second


class _Images(Dataset[_Given]):
    """Batches by their pairs of numbers, mixed if they are to be, as a worker process does it."""

    def __init__(self, show: Show) -> None:
        self.show = show

    def __getitem__(self, asked: _Asked) -> _Given:
        index, number, blend = asked
        try:
            shown = self.show(index, number)
        except UnderstudyError as error:
            # Raised in a worker, its one sentence would arrive inside a traceback.
            return error
        images, objects = shown if isinstance(shown, tuple) else (shown, None)
        return images if blend is None else blend(images), objects


def _checked(given: _Given) -> tuple[Tensor, Objects | None]:
    if isinstance(given, UnderstudyError):
        raise given
    return given
