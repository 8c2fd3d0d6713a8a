"""k-means over more rows than fit into memory: Lloyd's algorithm on growing samples.

Each iteration is one exact step of Lloyd's algorithm on a random sample of the images: a sixteenth
of them at first, a quarter later, all of them in the last iterations. Early centres are far from
their final values, so that a sample moves them as well as all rows would (the nested mini-batches
of Newling & Fleuret, NIPS 2016, arXiv 1602.02934).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

SCORE_BYTES = 64 * 2**20
"""Upper bound of the memory of the distances from a chunk of rows to all centres."""


@dataclass(frozen=True)
class Step:
    """Result of one iteration.

    Attributes:
        centers: Mean of the rows assigned to each previous centre; unchanged if there are none.
        counts: Number of rows assigned to each previous centre.
        error: Mean squared distance of a row to the nearest previous centre.
    """

    centers: Float[Tensor, "k dim"]
    counts: Int[Tensor, " k"]
    error: float


def nearest(
    rows: Float[Tensor, "rows dim"], centers: Float[Tensor, "k dim"]
) -> tuple[Int[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Return the index of the nearest centre of each row, and the squared distance to it."""
    # ‖x − c‖² = ‖x‖² − 2 (⟨x, c⟩ − ‖c‖²/2): the largest bracket is the nearest centre.
    best, index = torch.addmm(-centers.square().sum(1) / 2, rows, centers.T).max(1)
    return index, (rows.square().sum(1) - 2 * best).clamp_min(0)


def step(parts: Iterator[Float[Tensor, "_ dim"]], centers: Float[Tensor, "k dim"]) -> Step:
    """Run one iteration of Lloyd's algorithm over rows in parts of any size."""
    # Sums of many rows lose digits in float32.
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
    means = torch.where(counts.unsqueeze(1) > 0, means, centers)
    return Step(means, counts, error / max(1, int(counts.sum())))


def share(iteration: int, iterations: int) -> float:
    """Return the share of the images used in an iteration, counted from 0."""
    done = (iteration + 1) / iterations
    return 1 / 16 if done <= 0.5 else 1 / 4 if done <= 0.85 else 1.0


def kmeans(
    sample: Callable[[float], Iterator[Float[Tensor, "_ dim"]]],
    first: Float[Tensor, "k dim"],
    iterations: int,
    done: int = 0,
    after: Callable[[int, Step], None] = lambda iteration, step: None,
) -> Step:
    """Run all iterations; return the final centres with the counts of the last iteration.

    Args:
        sample: Share of the images → rows of a random sample, in parts.
        first: Initial centres, or those after `done` iterations.
        iterations: Total number of iterations.
        done: Number of iterations already done.
        after: Called after every iteration, with the number of iterations done.
    """
    centers = first
    for iteration in range(done, iterations):
        last = step(sample(share(iteration, iterations)), centers)
        centers = last.centers
        after(iteration + 1, last)
    return last
