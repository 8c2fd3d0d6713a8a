"""k-means over more rows than fit into memory: Lloyd's algorithm on samples that grow.

Each iteration is one exact step of Lloyd's on a random sample of the images, a sixteenth of them at
first, a quarter later, all of them in the last iterations. Early centres are far from where they
end, so that a sample moves them as well as all rows would (the nested mini-batches of Newling &
Fleuret, NIPS 2016, arXiv 1602.02934).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

SCORE_BYTES = 64 * 2**20
"""Memory of the distances from some rows to all centres."""


@dataclass(frozen=True)
class Step:
    """What one iteration leaves.

    Attributes:
        centers: Means of the rows that were nearest to the centres before.
        counts: How many rows that were; a centre without any stays where it was.
        error: Mean squared distance of a row to the nearest of the centres before.
    """

    centers: Float[Tensor, "k dim"]
    counts: Int[Tensor, " k"]
    error: float


def nearest(
    rows: Float[Tensor, "rows dim"], centers: Float[Tensor, "k dim"]
) -> tuple[Int[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Index of the nearest centre of each row, and the squared distance to it."""
    # ‖x − c‖² = ‖x‖² − 2 (⟨x, c⟩ − ‖c‖²/2): the largest bracket is the nearest centre.
    best, index = torch.addmm(-centers.square().sum(1) / 2, rows, centers.T).max(1)
    return index, (rows.square().sum(1) - 2 * best).clamp_min(0)


def step(parts: Iterator[Float[Tensor, "_ dim"]], centers: Float[Tensor, "k dim"]) -> Step:
    """One iteration of Lloyd's algorithm over rows given in parts, of any number."""
    sums = torch.zeros_like(centers, dtype=torch.float64)
    counts = torch.zeros(len(centers), dtype=torch.long, device=centers.device)
    error = 0.0
    most = max(1, SCORE_BYTES // (centers.itemsize * len(centers)))
    for part in parts:
        for rows in part.split(most):  # type: ignore[no-untyped-call]
            index, distance = nearest(rows, centers)
            sums.index_add_(0, index, rows.double())
            counts += index.bincount(minlength=len(centers))
            error += float(distance.double().sum())
    means = (sums / counts.clamp_min(1).unsqueeze(1)).to(centers.dtype)
    found = torch.where(counts.unsqueeze(1) > 0, means, centers)
    return Step(found, counts, error / max(1, int(counts.sum())))


def share(iteration: int, iterations: int) -> float:
    """Share of the images that an iteration, counted from 0, looks at."""
    done = (iteration + 1) / iterations
    return 1 / 16 if done <= 0.5 else 1 / 4 if done <= 0.85 else 1.0


def clusters(
    sample: Callable[[float], Iterator[Float[Tensor, "_ dim"]]],
    first: Float[Tensor, "k dim"],
    iterations: int,
    begun: int = 0,
    note: Callable[[int, Step], None] = lambda iteration, step: None,
) -> Step:
    """Centres after all iterations, with the counts of the last.

    Args:
        sample: Share of the images → their rows, in parts.
        first: Centres to begin with, or those after `begun` iterations.
        iterations: How many in all.
        begun: How many of them were done before.
        note: Told of every finished iteration.
    """
    centers = first
    for iteration in range(begun, iterations):
        last = step(sample(share(iteration, iterations)), centers)
        centers = last.centers
        note(iteration + 1, last)
    return last
