"""The order of an epoch: image and view of every row, from seed and epoch alone."""

import math

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from understudy.batch import labelled
from understudy.data._balance import Pools
from understudy.data._random import permutation, uniform
from understudy.errors import DataError

Pairs = tuple[Int64[Tensor, " images"], Int64[Tensor, " images"]]
"""Image numbers, and the number of the view of each."""

# The third counter of every hash names its use, so that no two uses share a stream.
_ALL_IMAGES, _LABELLED, _UNLABELLED, _WITHIN_BATCH, _BATCHES, _SHARDS, _BUFFER = range(7)
_PASSED = 2**16
"""Images that pass through a shuffle buffer at once, for the memory of their numbers."""


def shuffled_order(images: int, *, seed: int, epoch: int) -> Pairs:
    """Return every image once, in random order, each in view number `epoch`."""
    return permutation(images, seed, epoch, _ALL_IMAGES), torch.tensor(epoch).expand(images)


def shard_local_order(
    shards: Int64[Tensor, " shards_and_one"], *, buffer: int, seed: int, epoch: int
) -> Pairs:
    """Return every image once, each in view number `epoch`, read from few shards at a time.

    Shards come in random order, and their images pass through a shuffle buffer: each step shows a
    random one of the `buffer` images in it, in whose place the next image is read.

    Args:
        shards: Number of the first image of each shard, and of all images.
        buffer: Images in the buffer, at least 1.
        seed: Seed of the order.
        epoch: Number of the epoch.
    """
    first, last = shards[:-1], shards[1:]
    order = permutation(len(first), seed, epoch, _SHARDS)
    stream = torch.cat([torch.arange(int(first[s]), int(last[s])) for s in order])
    count = len(stream)
    buffer = min(buffer, count)
    held, sequence = stream[:buffer].tolist(), torch.empty(count, dtype=torch.int64)
    for start in range(buffer, count, _PASSED):
        steps = torch.arange(start, min(start + _PASSED, count))
        draws, passed = uniform(buffer, seed, epoch, _BUFFER, steps).tolist(), list[int]()
        for image, place in zip(stream[steps].tolist(), draws, strict=True):
            passed.append(held[place])
            held[place] = image
        sequence[steps - buffer] = torch.tensor(passed)
    sequence[count - buffer :] = torch.tensor(held)[permutation(buffer, seed, epoch, _BUFFER)]
    return sequence, torch.tensor(epoch).expand(count)


def balanced_order(
    labels: Int64[Tensor, "images ..."], *, balance: float, seed: int, epoch: int
) -> Pairs:
    """Return as many images as there are, in random order, classes balanced as in `_balance`.

    An image without a label comes once, in view number `epoch`.

    Args:
        labels: Labels of every image; -1 (`UNLABELLED`) where a label is not known.
        balance: From 0, each class as often as it has images, to 1, every class equally often.
        seed: Seed of the order.
        epoch: Number of the epoch.
    """
    known = labelled(labels)
    unlabelled = (~known).nonzero().flatten()
    pairs = unlabelled, torch.full_like(unlabelled, epoch)
    if known.any():
        pools = Pools(labels, balance=balance, total=int(known.sum()))
        drawn = pools.drawn(seed=seed, epoch=epoch)
        pairs = torch.cat([drawn[0], pairs[0]]), torch.cat([drawn[1], pairs[1]])
    order = permutation(len(labels), seed, epoch, _ALL_IMAGES)
    return pairs[0][order], pairs[1][order]


def grouped_order(
    portrait: Bool[Tensor, " images"],
    *,
    batch: int,
    seed: int,
    epoch: int,
    order: Pairs | None = None,
) -> Pairs:
    """Return images in random batches of one orientation, to save padding.

    The images left over when the batches of both orientations are full come last, so that at most
    one batch holds both.

    Args:
        portrait: True for every image that is higher than wide.
        batch: Images per batch.
        seed: Seed of the order.
        epoch: Number of the epoch.
        order: Images and views to group; default: every image once, in view number `epoch`.
    """
    index, view = order or shuffled_order(len(portrait), seed=seed, epoch=epoch)
    rows = torch.arange(len(index))
    groups = [rows[portrait[index]], rows[~portrait[index]]]
    full = torch.cat([x[: len(x) // batch * batch].view(-1, batch) for x in groups])
    rest = [x[len(x) // batch * batch :] for x in groups]
    grouped = torch.cat([full[permutation(len(full), seed, epoch, _BATCHES)].flatten(), *rest])
    return index[grouped], view[grouped]


def labelled_share_order(
    labels: Int64[Tensor, "images ..."],
    *,
    share: float,
    batch: int,
    steps: int,
    seed: int,
    epoch: int,
    balance: float = 0.0,
) -> Pairs:
    """Return `steps` batches, each with the same share of labelled images at random rows.

    Args:
        labels: Labels of every image; -1 (`UNLABELLED`) where a label is not known.
        share: Share of labelled images in a batch.
        batch: Images per batch.
        steps: Batches per epoch.
        seed: Seed of the order.
        epoch: Number of the epoch.
        balance: Balance of the classes among the labelled images, as for `balanced_order`.

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
    if balance and count:
        pairs = Pools(labels, balance=balance, total=steps * count).drawn(seed=seed, epoch=epoch)
        order = permutation(steps * count, seed, epoch, _LABELLED)
        index, view = (x[order].view(steps, count) for x in pairs)
        parts[0] = index, view
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
