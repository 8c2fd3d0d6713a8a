"""Sub-classes of the locations of each class, and the decision matrix between them.

Linear discriminant analysis from sums, k-means within each class, and the share of each sub-class
that is nearest to the prototype of each sub-class.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from understudy.methods._letkd.kmeans import nearest, step

FAR = 2.0**50
"""Coordinate of the centre of an empty sub-class: nearest to no location."""
_SEED = 0


class Scatter:
    """Sums over rows by class, from which linear discriminant analysis is computed.

    Args:
        classes: Number of classes.
        dim: Dimension of the rows.
        device: Where the sums are kept.
    """

    def __init__(self, classes: int, dim: int, device: torch.device) -> None:
        self.counts = torch.zeros(classes, dtype=torch.float64, device=device)
        self.sums = torch.zeros(classes, dim, dtype=torch.float64, device=device)
        self.gram = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    def add(self, rows: Float[Tensor, "rows dim"], label: int) -> None:
        """Add rows of one class."""
        rows = rows.double()
        self.counts[label] += len(rows)
        self.sums[label] += rows.sum(0)
        self.gram += rows.T @ rows

    def axes(self, dims: int) -> tuple[Float[Tensor, "dim dims"], Float[Tensor, " dim"]]:
        """Compute the discriminant axes, most discriminative first, and the overall mean.

        The within-class covariance is the identity along the axes. Directions without within-class
        variance are left out; if fewer than `dims` axes exist, the others are zero.
        """
        counts = self.counts[self.counts > 0]
        sums = self.sums[self.counts > 0]
        mean, means = sums.sum(0) / counts.sum(), sums / counts.unsqueeze(1)
        # Σ_k Σ_{x of k} (x − m_k)(x − m_k)ᵀ = Σ x xᵀ − Σ_k n_k m_k m_kᵀ
        within = self.gram - sums.T @ means
        covariance = within / max(1.0, float(counts.sum() - len(counts)))
        variance, directions = torch.linalg.eigh(covariance)
        kept = variance > 1e-10 * variance[-1]
        whiten = directions[:, kept] / variance[kept].sqrt()
        # Of whitened class means, the axes of largest variance are the discriminant axes.
        between = (counts / max(1, len(counts) - 1)).sqrt().unsqueeze(1) * (means - mean) @ whiten
        rotation = torch.linalg.svd(between, full_matrices=False).Vh[: min(dims, len(counts) - 1)]
        axes = whiten @ rotation.T
        return torch.nn.functional.pad(axes, (0, dims - axes.shape[1])), mean


def centers_of(
    rows: Float[Tensor, "rows dims"], count: int, iterations: int
) -> Float[Tensor, "count dims"]:
    """Run k-means on the rows of one class, from randomly chosen rows."""
    centers = rows.new_full((count, rows.shape[1]), FAR)
    if not len(rows):
        return centers
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(_SEED))
    means = rows[order[:count].to(rows.device)]
    for _ in range(iterations):
        last = step(iter([rows]), means)
        means = last.centers
    centers[: len(means)] = torch.where(last.counts.unsqueeze(1) > 0, means, FAR)
    return centers


def prototypes_of(
    rows: Float[Tensor, "rows dims"], centers: Float[Tensor, "count dims"]
) -> Float[Tensor, "count dims"]:
    """Compute the mean of the rows that are nearest to each centre."""
    if not len(rows):
        return centers
    last = step(iter([rows]), centers)
    return torch.where(last.counts.unsqueeze(1) > 0, last.centers, FAR)


def decisions(
    rows: Callable[[int], Float[Tensor, "rows dims"]],
    centers: Float[Tensor, "classes count dims"],
    prototypes: Float[Tensor, "classes count dims"],
) -> Float[Tensor, "subclasses subclasses"]:
    """Compute T: of the rows of each sub-class, the share nearest to each prototype.

    Args:
        rows: Class → its rows.
        centers: Centres that split the rows of a class into sub-classes.
        prototypes: Prototypes of all sub-classes of all classes.
    """
    classes, count, _ = centers.shape
    total, all_prototypes = classes * count, prototypes.flatten(0, 1)
    shares = torch.zeros(total, total, dtype=torch.float64, device=centers.device)
    for label in range(classes):
        z = rows(label)
        own = label * count + nearest(z, centers[label])[0]
        decided: Int[Tensor, " rows"] = nearest(z, all_prototypes)[0]
        # A two-dimensional histogram of (own, decided) by its flat index.
        counts = (own * total + decided).bincount(minlength=total**2)
        shares += counts.view(total, total)
    return shares / shares.sum(1, keepdim=True).clamp_min(1)
