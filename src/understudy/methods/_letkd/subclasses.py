"""Sub-classes of the locations of each class, and how separable they are, as letKD asks for them.

Discriminant analysis from sums alone, k-means within each class, and the share of each sub-class
that lies nearest to the prototype of each other one.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from understudy.methods._letkd.kmeans import nearest, step

FAR = 2.0**50
"""Where a sub-class without any location is put: nearest to nothing."""
_SEED = 0


class Scatter:
    """Sums over rows by class, from which the discriminant analysis is computed."""

    def __init__(self, classes: int, dim: int, device: torch.device) -> None:
        self.counts = torch.zeros(classes, dtype=torch.float64, device=device)
        self.sums = torch.zeros(classes, dim, dtype=torch.float64, device=device)
        self.gram = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    def add(self, rows: Float[Tensor, "rows dim"], label: int) -> None:
        """Some more rows of one class."""
        rows = rows.double()
        self.counts[label] += len(rows)
        self.sums[label] += rows.sum(0)
        self.gram += rows.T @ rows

    def axes(self, dims: int) -> tuple[Float[Tensor, "dim dims"], Float[Tensor, " dim"]]:
        """Projection and overall mean: discriminant axes, the most telling first.

        The covariance within classes is the identity after it. Directions without any spread within
        classes are left out; where fewer than `dims` axes exist, the others are zero.
        """
        counts = self.counts[self.counts > 0]
        sums = self.sums[self.counts > 0]
        mean, means = sums.sum(0) / counts.sum(), sums / counts.unsqueeze(1)
        within = self.gram - sums.T @ means
        spread, directions = torch.linalg.eigh(within / max(1.0, float(counts.sum() - len(counts))))
        kept = spread > 1e-10 * spread[-1]
        whiten = directions[:, kept] / spread[kept].sqrt()
        between = (counts / max(1, len(counts) - 1)).sqrt().unsqueeze(1) * (means - mean) @ whiten
        turn = torch.linalg.svd(between, full_matrices=False).Vh[: min(dims, len(counts) - 1)]
        axes = whiten @ turn.T
        return torch.nn.functional.pad(axes, (0, dims - axes.shape[1])), mean


def centers_of(
    rows: Float[Tensor, "rows dims"], count: int, iterations: int
) -> Float[Tensor, "count dims"]:
    """k-means of the rows of one class, from random ones of them."""
    centers = rows.new_full((count, rows.shape[1]), FAR)
    if not len(rows):
        return centers
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(_SEED))
    found = rows[order[:count].to(rows.device)]
    for _ in range(iterations):
        last = step(iter([rows]), found)
        found = last.centers
    centers[: len(found)] = torch.where(last.counts.unsqueeze(1) > 0, found, FAR)
    return centers


def prototypes_of(
    rows: Float[Tensor, "rows dims"], centers: Float[Tensor, "count dims"]
) -> Float[Tensor, "count dims"]:
    """Means of the rows that are nearest to each centre."""
    if not len(rows):
        return centers
    last = step(iter([rows]), centers)
    return torch.where(last.counts.unsqueeze(1) > 0, last.centers, FAR)


def decisions(
    rows: Callable[[int], Float[Tensor, "rows dims"]],
    centers: Float[Tensor, "classes count dims"],
    prototypes: Float[Tensor, "classes count dims"],
) -> Float[Tensor, "subclasses subclasses"]:
    """T: of the rows of each sub-class, the share nearest to each of all prototypes.

    Args:
        rows: Class → its rows.
        centers: Of each class, by which its rows are told apart.
        prototypes: Of all classes, among which each row decides freely.
    """
    classes, count, _ = centers.shape
    total, every = classes * count, prototypes.flatten(0, 1)
    shares = torch.zeros(total, total, dtype=torch.float64, device=centers.device)
    for label in range(classes):
        z = rows(label)
        own = label * count + nearest(z, centers[label])[0]
        free: Int[Tensor, " rows"] = nearest(z, every)[0]
        found = (own * total + free).bincount(minlength=total**2)
        shares += found.view(total, total)
    return shares / shares.sum(1, keepdim=True).clamp_min(1)
