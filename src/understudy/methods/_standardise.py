"""Standardisation of a teacher's features, before a student is asked to predict them.

    none     y = x
    unit     y = x / ‖x‖                            each row by itself
    frozen   y = (x − μ) / σ                        each dimension, over the training images
    ema      y = (x − m) / (s + ε),  then  m ← (1 − ρ) m + ρ·mean(x)
                                       and   s ← (1 − ρ) s + ρ (std(x) + ε)
    phi_s    y = H Uᵀ (x − μ) / α                   Σ = U diag(e) Uᵀ,   α = √(tr Σ / D)

x ∈ R^D is a row: a summary, or one token of a map. `phi_s` (PHI-S: Ranzinger et al., 2024, arXiv
2410.01680) is one rotation and one number for all dimensions: H is a Hadamard matrix over √D
(`_hadamard.py`), which spreads the variance evenly, so that every dimension of y has variance 1,
also of features of low rank. `ema` is that of UNIC (Sarıyıldız et al., ECCV 2024, arXiv
2408.05088), `frozen` that of Theia (Shang et al., 2024, arXiv 2407.20179).

μ, σ and Σ are measured once over one augmented view of the training images, in float64, before
training begins; all statistics are part of the state. A dimension that is constant over all images
becomes 0.

Difference from UNIC's code: its statistics start from mean 0 and deviation 1, so that its first
step compares raw features, and ρ falls from 1 to `momentum` along half a cosine. Here they start
from those measured, and ρ is `momentum` from the start; `momentum_steps` gives the published form.
"""

import logging
from collections.abc import Callable, Mapping
from math import ceil, pi
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from understudy.features import TeacherOutputs
from understudy.functional import double, global_sum, sum_dtype, unit
from understudy.methods._hadamard import rotation
from understudy.methods._tokens import tokens

LOGGER = logging.getLogger("understudy")

Kind = Literal["none", "unit", "frozen", "ema", "phi_s"]

EPS = 1e-6
"""ε; a deviation up to it counts as none."""

_ENOUGH = 10
"""Tokens for each dimension from which a covariance is reliable."""

_SAMPLED = 100
"""Tokens for each dimension that a covariance is estimated from, if there are so many."""


@final
class TokenMoments:
    """Count, mean and covariance of rows, in float64.

    Args:
        dim: Dimension of the rows.
        joint: Whether to sum the products of all pairs of dimensions, or the squares alone.
    """

    def __init__(self, dim: int, *, joint: bool) -> None:
        self.count = 0
        self._joint, self._shift = joint, torch.zeros(dim)
        self._sum = self._squares = torch.zeros(())

    def add(self, rows: Float[Tensor, "rows dim"]) -> None:
        """Add rows."""
        exact = double(rows)
        if not self.count:
            # Sums of squares around a mean lose fewer digits than around 0.
            self._shift = exact.mean(0)
            self._sum = torch.zeros_like(self._shift)
            size = (len(self._shift),) * (2 if self._joint else 1)
            self._squares = exact.new_zeros(size)
        exact = exact - self._shift
        self.count += len(rows)
        self._sum = self._sum + exact.sum(0)
        self._squares = self._squares + (exact.T @ exact if self._joint else exact.square().sum(0))

    @property
    def mean(self) -> Float[Tensor, " dim"]:
        """Mean of the rows."""
        return self._shift + self._sum / max(self.count, 1)

    @property
    def covariance(self) -> Float[Tensor, "dim dim"] | Float[Tensor, " dim"]:
        """Unbiased covariance; its diagonal alone if not `joint`."""
        mean = self._sum / max(self.count, 1)
        product = torch.outer(mean, mean) if self._joint else mean.square()
        return (self._squares - self.count * product) / max(self.count - 1, 1)


def phi_s(
    eigenvalues: Float[Tensor, " dim"],
    eigenvectors: Float[Tensor, "dim dim"],
    hadamard: Float[Tensor, "dim dim"],
) -> tuple[Float[Tensor, "dim dim"], Float[Tensor, ""]]:
    """Compute the rotation H Uᵀ and the scale α of PHI-S; negative eigenvalues count as 0.

    Args:
        eigenvalues: e of the covariance.
        eigenvectors: U, in columns.
        hadamard: H, orthogonal.
    """
    return hadamard @ eigenvectors.T, eigenvalues.clamp_min(0).mean().sqrt()


def momentum_at(step: Int[Tensor, "..."], steps: int, end: float) -> Float[Tensor, "..."]:
    """Compute ρ of a step: half a cosine from 1 at step 0 to `end` at step `steps` and after."""
    share = step.clamp_max(steps).double() / steps
    return end + (1 - end) * (1 + (pi * share).cos()) / 2


@final
class Standardiser(nn.Module):
    """Standardises rows of features by statistics of the teacher, and undoes it.

    Args:
        kind: Form of the standardisation.
        dim: D.
        momentum: ρ of `ema`.
        momentum_steps: Steps over which ρ falls from 1 to `momentum`, with statistics that start
            from mean 0 and deviation 1 as published; None starts from those measured.

    Attributes:
        measures: True if it must be measured before it is used.
    """

    mean: Float[Tensor, " dim"]
    scale: Float[Tensor, "*dim"]
    rotation: Float[Tensor, "dim dim"]
    step: Int[Tensor, ""]

    def __init__(
        self, kind: Kind, dim: int, *, momentum: float = 0.001, momentum_steps: int | None = None
    ) -> None:
        super().__init__()
        self.kind, self._momentum, self._steps = kind, momentum, momentum_steps
        self.measures = kind in ("frozen", "phi_s") or (kind == "ema" and momentum_steps is None)
        if kind not in ("none", "unit"):
            self.register_buffer("mean", torch.zeros(dim))
            self.register_buffer("scale", torch.ones(() if kind == "phi_s" else dim))
        if kind == "phi_s":
            self.register_buffer("rotation", torch.eye(dim))
        if kind == "ema":
            self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def forward(self, x: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows dim"]:
        """Return standardised rows; in training `ema` then updates its statistics."""
        y = self._standardised(x)
        if self.training and self.kind == "ema":
            self._update(x.detach())
        return y

    def _standardised(self, x: Tensor) -> Tensor:
        if self.kind == "unit":
            return unit(x)
        if self.kind == "none":
            return x
        if self.kind == "phi_s":
            return (x - self.mean) @ self.rotation.T / self.scale
        return (x - self.mean) / (self.scale + EPS if self.kind == "ema" else self.scale)

    def restore(self, y: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows dim"]:
        """Return rows of the teacher's own scale for standardised ones; `unit` has forgotten it."""
        if self.kind in ("none", "unit"):
            return y
        if self.kind == "phi_s":
            return self.scale * (y @ self.rotation) + self.mean
        return y * (self.scale + EPS if self.kind == "ema" else self.scale) + self.mean

    @torch.no_grad()
    def _update(self, x: Float[Tensor, "*rows dim"]) -> None:
        """Move the statistics towards those of the rows of all processes."""
        rows = x.flatten(0, -2)
        count = global_sum(rows.new_full((), len(rows)))
        mean = global_sum(rows.sum(0)) / count.clamp_min(1)
        squares = global_sum((rows - mean).square().sum(0))
        std = (squares / (count - 1).clamp_min(1)).sqrt() + EPS
        # A single row has no deviation.
        rho = self.rho() * (count > 1)
        self.mean.lerp_(mean, rho)
        self.scale.lerp_(std, rho)
        self.step += 1

    def rho(self) -> Float[Tensor, ""]:
        """Return ρ of the next update of `ema`."""
        if self._steps is None:
            return self.mean.new_full((), self._momentum)
        return momentum_at(self.step, self._steps, self._momentum).to(self.mean)

    @torch.no_grad()
    def set(self, moments: TokenMoments) -> None:
        """Take the statistics of moments that were measured."""
        self.mean.copy_(moments.mean)
        if self.kind == "phi_s":
            values, vectors = torch.linalg.eigh(moments.covariance)
            turned, scale = phi_s(values, vectors, rotation(len(values)).to(vectors))
            self.rotation.copy_(turned)
        else:
            scale = moments.covariance.clamp_min(0).sqrt()
        self.scale.copy_(torch.where(scale > EPS, scale, 1))


def measure(
    standardisers: Mapping[str, Standardiser],
    teacher: TeacherOutputs,
    map_of: Callable[[Mapping[str, Tensor], str], Tensor],
) -> None:
    """Measure features of the teacher, by name, in one pass over the training images.

    Of many tokens of an image a part is drawn for a covariance, so that in all there are a hundred
    for each dimension.

    Args:
        standardisers: By name of the feature.
        teacher: Gives the features.
        map_of: Returns a feature as a map: `Method.teacher_as_map`.
    """
    needed = {name: each for name, each in standardisers.items() if each.measures}
    if not needed:
        return
    moments = {
        name: TokenMoments(len(each.mean), joint=each.kind == "phi_s")
        for name, each in needed.items()
    }
    random = torch.Generator().manual_seed(0)
    images = teacher.num_images
    for features, _ in teacher.batches(augmented=True):
        for name, each in needed.items():
            x = features[name]
            # One row of a vector, or the tokens of a map.
            rows = x.unsqueeze(1) if x.dim() == 2 else tokens(map_of(features, name))
            if each.kind == "phi_s":
                share = ceil(_SAMPLED * len(each.mean) / max(images, 1))
                drawn = torch.randperm(rows.shape[1], generator=random)[:share]
                rows = rows[:, drawn.to(rows.device)]
            moments[name].add(rows.flatten(0, 1).to(sum_dtype(rows.device)))
    for name, each in needed.items():
        _warn_of_few(each, name, moments[name].count)
        each.set(moments[name])


def _warn_of_few(standardiser: Standardiser, name: str, count: int) -> None:
    dim = len(standardiser.mean)
    if standardiser.kind == "phi_s" and count < _ENOUGH * dim:
        LOGGER.warning(
            f"PHI-S measured the covariance of the {dim} dimensions of the teacher's {name} on "
            f"{count} rows; with fewer than {_ENOUGH * dim} it is rough. More images help."
        )
