"""Class-balanced sampling: how often an epoch shows the images of each class, and which of them.

Class c with n_c images gets a share of the epoch in proportion to n_c^(1 − balance): at `balance` 1
every class gets the same (class-aware sampling: Shen et al., "Relay Backpropagation", ECCV 2016),
at ½ the square root (Kang et al., "Decoupling Representation and Classifier", ICLR 2020).

The images of a class come in rounds: each round holds every one of them once, in an order of its
own, and in views that no other round has. Epoch e continues where epoch e − 1 stopped, which
follows from e alone.
"""

from typing import final

import torch
from jaxtyping import Int64
from torch import Tensor

from understudy.batch import UNLABELLED, labelled
from understudy.data._random import permutation

_USE = 5
"""Third counter of the hashes, beside those of `_order`."""


@final
class Pools:
    """The images of each class, and how many draws of them an epoch has.

    Images that have a label and none of several classes are a pool of their own; those without a
    label are in none.

    Args:
        labels: Label of every image, or a row for several classes.
        balance: Exponent as above, from 0 to 1.
        total: Draws of an epoch.

    Attributes:
        classes: Class of each pool; -1 for the images without any.
        images: Numbers of the images of each pool.
        draws: Draws of each pool in an epoch.
    """

    def __init__(self, labels: Int64[Tensor, "images ..."], *, balance: float, total: int) -> None:
        pools = _of_classes(labels)
        self.classes, self.images = list(pools), list(pools.values())
        shares = torch.tensor([len(pool) for pool in self.images]).double() ** (1 - balance)
        self.draws = _rounded(shares / shares.sum() * total, total)
        pools_of_image = torch.zeros(len(labels), dtype=torch.int64)
        self._ranks = []
        for pool in self.images:
            self._ranks.append(pools_of_image[pool])
            pools_of_image[pool] += 1
        self._pools_of_image = pools_of_image

    def drawn(
        self, *, seed: int, epoch: int
    ) -> tuple[Int64[Tensor, " total"], Int64[Tensor, " total"]]:
        """Return image and view of every draw of an epoch, class by class."""
        parts = [self._of_pool(place, seed, epoch) for place in range(len(self.images))]
        index, view = (torch.cat(rows) for rows in zip(*parts, strict=True))
        return index, view

    def _of_pool(self, place: int, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        pool, draws = self.images[place], self.draws[place]
        first = epoch * draws
        start, end = first // len(pool), -(-(first + draws) // len(pool))
        orders = [
            permutation(len(pool), seed, number, _USE, self.classes[place])
            for number in range(start, end)
        ]
        rounds = torch.arange(start, end).repeat_interleave(len(pool))
        rows = torch.cat([torch.empty(0, dtype=torch.int64), *orders])
        within = slice(first - start * len(pool), first - start * len(pool) + draws)
        rows, rounds = rows[within], rounds[within]
        index = pool[rows]
        # An image of several classes is in several pools, and in each has views of its own.
        return index, rounds * self._pools_of_image[index] + self._ranks[place][rows]


def _of_classes(labels: Int64[Tensor, "images ..."]) -> dict[int, Tensor]:
    """Map each class that has images to the numbers of these."""
    known = labelled(labels)
    if labels.ndim == 1:
        classes = torch.unique(labels[known]).tolist()
        return {c: (labels == c).nonzero().flatten() for c in classes}
    present = labels == 1
    pools = {c: present[:, c].nonzero().flatten() for c in range(labels.shape[1])}
    pools[UNLABELLED] = (known & ~present.any(1)).nonzero().flatten()
    return {c: pool for c, pool in pools.items() if len(pool)}


def _rounded(exact: Tensor, total: int) -> list[int]:
    """Return whole numbers near to some that sum up to `total`, the largest remainders rounded up.

    Equal remainders are rounded up in their order.
    """
    whole = exact.floor().long()
    # To nine digits: equal shares have equal remainders, whatever the last bits are.
    remainders = ((exact - whole) * 1e9).round()
    order = remainders.argsort(descending=True, stable=True)
    whole[order[: total - int(whole.sum())]] += 1
    numbers: list[int] = whole.tolist()
    return numbers
