"""The KD layer of letKD, and how layers are inserted into and removed from a student.

Gorgun, Gurbuz & Alatan, "Knowledge Distillation Layer that Lets the Student Decide", arXiv
2309.02843. This file needs nothing but torch, so that it can be copied along with a student.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

_EPS = 1e-12
"""Lower clamp of every norm that divides."""


@final
class CosineConv(nn.Module):
    """1×1 convolution by cosine: weight rows and inputs scaled to length 1, times a learned scale.

    Weights are initialised from N(0, 2 / inputs). The length of a row does not change the output,
    but longer rows turn more slowly in training.
    """

    def __init__(self, inputs: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * (2 / inputs) ** 0.5)
        self.scale = nn.Parameter(torch.tensor([scale]))

    def kernel(self) -> Float[Tensor, "outputs inputs"]:
        """Return the weight with rows scaled to length `scale`."""
        return self.scale * F.normalize(self.weight, dim=1, eps=_EPS)

    def forward(self, x: Float[Tensor, "b inputs h w"]) -> Float[Tensor, "b outputs h w"]:
        """Compute scaled cosines at every location; 0 where the input is zero."""
        return F.conv2d(F.normalize(x, dim=1, eps=_EPS), self.kernel()[..., None, None])


@final
class KDLayer(nn.Module):
    """Scores of K templates at each location, and a residual computed from the scores.

        a = score(x),   u = ReLU(BN(a)),   v = s₂ ⟨u/‖u‖, V/‖V‖⟩,   x̂ = x + α v

    Args:
        channels: Channels of the map x.
        words: K, number of templates.
        alpha: α; 0 computes the scores and leaves the map unchanged.
        averaged: Add the spatial mean of v instead of v. The output is the same if the map is
            average-pooled next, and the second convolution runs once per image, not per location.
    """

    alpha: Float[Tensor, ""]
    averaged: Tensor

    def __init__(self, channels: int, words: int, *, alpha: float, averaged: bool) -> None:
        super().__init__()
        self.score = CosineConv(channels, words, 3.0)
        self.idle, self._averages = alpha == 0, averaged
        if self.idle:
            return
        self.norm = nn.BatchNorm2d(words)
        self.value = CosineConv(words, channels, 1.0)
        # Buffers, so that a state dict alone is enough to rebuild the layer.
        self.register_buffer("alpha", torch.tensor(alpha))
        self.register_buffer("averaged", torch.tensor(averaged))

    def forward(self, x: Float[Tensor, "b channels h w"]) -> Float[Tensor, "b channels h w"]:
        """Compute x̂."""
        scores = self.score(x)
        return x if self.idle else x + self.alpha * self._residual(scores)

    def _residual(self, scores: Float[Tensor, "b words h w"]) -> Tensor:
        """Compute v, or its spatial mean as a 1×1 map.

        The division by ‖u‖ is done after the convolution, or inside the mean: a normalised copy of
        u would be as large as the scores, and be stored until the backward pass.
        """
        u = F.relu(self.norm(scores), inplace=True)
        length = torch.linalg.vector_norm(u, dim=1, keepdim=True).clamp_min(_EPS)
        kernel = self.value.kernel()
        if not self._averages:
            value: Tensor = F.conv2d(u, kernel[..., None, None]) / length
            return value
        # Σ_n u_n / (‖u_n‖ H W), as a matrix product that stores no further tensor of this size.
        weights = 1 / (length * length[0].numel())
        mean = u.flatten(2) @ weights.flatten(2).mT
        return F.linear(mean.squeeze(2), kernel)[..., None, None]


@final
class WithLayer(nn.Module):
    """A module and a layer after it, which replaces the module in the student.

    Args:
        body: The module, whose output is a map, or tokens of which the last are a grid.
        layer: The layer after it.
        channels_last: Whether the module's map is `(batch, height, width, channels)`.
        grid: Of tokens, how many are before the grid, and its height and width; None for a map.
    """

    def __init__(
        self,
        body: nn.Module,
        layer: nn.Module,
        channels_last: bool,
        grid: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        self.layer = layer
        self.channels_last, self.grid = channels_last, grid

    def forward(self, *arguments: object, **keywords: object) -> Tensor:
        """Apply the module, then the layer."""
        x: Tensor = self.body(*arguments, **keywords)
        if self.grid is not None:
            return self._on_tokens(x, *self.grid)
        if not self.channels_last:
            return self.layer(x)  # type: ignore[no-any-return]
        return self.layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # type: ignore[no-any-return]

    def _on_tokens(self, x: Tensor, prefix: int, height: int, width: int) -> Tensor:
        """Apply the layer to the grid of tokens, which larger images have more of."""
        before, patches = x[:, :prefix], x[:, prefix:]
        if patches.shape[1] != height * width:
            height = round((patches.shape[1] * height / width) ** 0.5)
        y: Tensor = self.layer(patches.mT.reshape(*patches.mT.shape[:2], height, -1))
        return torch.cat([before, y.flatten(2).mT], 1)


def kd_layers_in(state: Mapping[str, Tensor]) -> Iterator[tuple[str, KDLayer]]:
    """Rebuild the KD layers of a state dict, without its values: path → layer, outermost first."""
    suffix = ".layer.score.weight"
    for path in sorted((k.removesuffix(suffix) for k in state if k.endswith(suffix)), key=len):
        words, channels = state[path + suffix].shape
        alpha = float(state[f"{path}.layer.alpha"])
        averaged = bool(state[f"{path}.layer.averaged"])
        yield path, KDLayer(channels, words, alpha=alpha, averaged=averaged)


def remove_idle_layers(module: nn.Module) -> None:
    """Remove, in place, the KD layers that leave their map unchanged (α = 0)."""
    _remove(module, [p for p, block in _blocks(module) if getattr(block.layer, "idle", False)])


def without_layers(module: nn.Module) -> nn.Module:
    """Return a copy without inserted layers; the module itself if it has none."""
    paths = [path for path, _ in _blocks(module)]
    if not paths:
        return module
    bare = deepcopy(module)
    _remove(bare, paths)
    return bare


def _blocks(module: nn.Module) -> Iterator[tuple[str, WithLayer]]:
    for path, block in module.named_modules():
        if isinstance(block, WithLayer):
            yield path, block


def _remove(module: nn.Module, paths: list[str]) -> None:
    # Innermost first: removing an outer block would change the paths inside it.
    for path in reversed(paths):
        block = module.get_submodule(path)
        assert isinstance(block, WithLayer)
        module.set_submodule(path, block.body)
