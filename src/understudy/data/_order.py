"""The order of an epoch: which view of which image comes when, from seed and epoch alone."""

import math

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from understudy.batch import labelled
from understudy.data._random import counter_hash
from understudy.errors import DataError

Pairs = tuple[Int64[Tensor, " images"], Int64[Tensor, " images"]]
"""Image numbers, and the view of each that is shown."""

# Each use of random numbers has a number of its own, so that no two share a stream.
_EVERYTHING, _LABELLED, _UNLABELLED, _WITHIN, _BATCHES = range(5)


def plain(images: int, *, seed: int, epoch: int) -> Pairs:
    """Every image once, in random order, in view number `epoch`."""
    return shuffled(images, seed, epoch, _EVERYTHING), torch.full((images,), epoch)


def grouped(portrait: Bool[Tensor, " images"], *, batch: int, seed: int, epoch: int) -> Pairs:
    """The same in batches of images that are all portrait, or all not: little of them is padding.

    What is left of both kinds when the batches are full comes last: one batch at most holds both.
    """
    order, view = plain(len(portrait), seed=seed, epoch=epoch)
    kinds = [order[portrait[order]], order[~portrait[order]]]
    full = torch.cat([x[: len(x) // batch * batch].view(-1, batch) for x in kinds])
    rest = [x[len(x) // batch * batch :] for x in kinds]
    return torch.cat([full[shuffled(len(full), seed, epoch, _BATCHES)].flatten(), *rest]), view


def mixed(
    labels: Int64[Tensor, "images ..."],
    *,
    share: float,
    batch: int,
    steps: int,
    seed: int,
    epoch: int,
) -> Pairs:
    """`steps` batches, each with the same `share` of labelled images, at random places in it."""
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
    # Processes and micro-batches take fixed places of a batch: each should get its part of both.
    places = torch.stack([shuffled(batch, seed, epoch, _WITHIN, step) for step in range(steps)])
    return index.gather(1, places).flatten(), view.gather(1, places).flatten()


def _repeated(
    pool: Int64[Tensor, " images"], count: int, *, steps: int, seed: int, epoch: int, use: int
) -> tuple[Int64[Tensor, "steps count"], Int64[Tensor, "steps count"]]:
    """`count` images of the pool for every step, reshuffled whenever all have been shown."""
    if count and not len(pool):
        kind = "labelled" if use == _LABELLED else "unlabelled"
        raise DataError(
            f"Each batch should hold {count} {kind} images, but the data have none; "
            "change the labelled share or leave it out."
        )
    repeats = math.ceil(steps * count / len(pool)) if count else 0
    rounds = [pool[shuffled(len(pool), seed, epoch, use, r)] for r in range(repeats)]
    # An image shown twice in an epoch is shown in two views, never used in another epoch.
    views = [torch.full_like(pool, epoch * repeats + r) for r in range(repeats)]
    index, view = (
        torch.cat([torch.empty(0, dtype=torch.int64), *x])[: steps * count] for x in (rounds, views)
    )
    return index.view(steps, count), view.view(steps, count)


def shuffled(n: int, *counters: int) -> Int64[Tensor, " n"]:
    generator = torch.Generator().manual_seed(int(counter_hash(*counters)))
    return torch.randperm(n, generator=generator)
