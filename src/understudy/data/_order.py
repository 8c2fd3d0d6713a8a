"""The order of an epoch: image and view of every row, from seed and epoch alone."""

import math

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from understudy.batch import labelled
from understudy.data._random import counter_hash
from understudy.errors import DataError

Pairs = tuple[Int64[Tensor, " images"], Int64[Tensor, " images"]]
"""Image numbers, and the number of the view of each."""

# The third counter of every hash names its use, so that no two uses share a stream.
_ALL_IMAGES, _LABELLED, _UNLABELLED, _WITHIN_BATCH, _BATCHES = range(5)


def shuffled_order(images: int, *, seed: int, epoch: int) -> Pairs:
    """Return every image once, in random order, each in view number `epoch`."""
    return permutation(images, seed, epoch, _ALL_IMAGES), torch.full((images,), epoch)


def grouped_order(portrait: Bool[Tensor, " images"], *, batch: int, seed: int, epoch: int) -> Pairs:
    """Return every image once, in random batches of one orientation, to save padding.

    The images left over when the batches of both orientations are full come last, so that at most
    one batch holds both.

    Args:
        portrait: True for every image that is higher than wide.
        batch: Images per batch.
        seed: Seed of the order.
        epoch: Number of the epoch, which is also the number of the views.
    """
    order, view = shuffled_order(len(portrait), seed=seed, epoch=epoch)
    groups = [order[portrait[order]], order[~portrait[order]]]
    full = torch.cat([x[: len(x) // batch * batch].view(-1, batch) for x in groups])
    rest = [x[len(x) // batch * batch :] for x in groups]
    return torch.cat([full[permutation(len(full), seed, epoch, _BATCHES)].flatten(), *rest]), view


def labelled_share_order(
    labels: Int64[Tensor, "images ..."],
    *,
    share: float,
    batch: int,
    steps: int,
    seed: int,
    epoch: int,
) -> Pairs:
    """Return `steps` batches, each with the same share of labelled images at random rows.

    Args:
        labels: Labels of every image; -1 (`UNLABELLED`) where a label is not known.
        share: Share of labelled images in a batch.
        batch: Images per batch.
        steps: Batches per epoch.
        seed: Seed of the order.
        epoch: Number of the epoch.

    Raises:
        DataError: A batch needs labelled or unlabelled images, and the data have none.
    """
    known, count = labelled(labels), round(share * batch)
    pools = (
        (known, count, _LABELLED),
        (~known, batch - count, _UNLABELLED),
    )
    parts = [
        _repeated(pool.nonzero().flatten(), count, steps=steps, seed=seed, epoch=epoch, use=use)
        for pool, count, use in pools
    ]
    index, view = (torch.cat(rows, dim=1) for rows in zip(*parts, strict=True))
    # Processes and micro-batches take fixed rows of a batch: each should get its part of both.
    rows = torch.stack(
        [permutation(batch, seed, epoch, _WITHIN_BATCH, step) for step in range(steps)]
    )
    return index.gather(1, rows).flatten(), view.gather(1, rows).flatten()


def _repeated(
    pool: Int64[Tensor, " images"], count: int, *, steps: int, seed: int, epoch: int, use: int
) -> tuple[Int64[Tensor, "steps count"], Int64[Tensor, "steps count"]]:
    """Return `count` images of the pool for every step; the pool is reshuffled when used up."""
    if count and not len(pool):
        kind = "labelled" if use == _LABELLED else "unlabelled"
        raise DataError(
            f"Each batch should hold {count} {kind} images, but the data have none; "
            "change data.labelled_share or leave it out."
        )
    repeats = math.ceil(steps * count / len(pool)) if count else 0
    rounds = [pool[permutation(len(pool), seed, epoch, use, r)] for r in range(repeats)]
    # An image that comes twice in an epoch comes in two views, neither used in another epoch.
    views = [torch.full_like(pool, epoch * repeats + r) for r in range(repeats)]
    index, view = (
        torch.cat([torch.empty(0, dtype=torch.int64), *x])[: steps * count] for x in (rounds, views)
    )
    return index.view(steps, count), view.view(steps, count)


def permutation(n: int, *counters: int) -> Int64[Tensor, " n"]:
    """Return a random permutation of 0 … n - 1 that depends on the counters alone."""
    generator = torch.Generator().manual_seed(int(counter_hash(*counters)))
    return torch.randperm(n, generator=generator)
